"""mmdet 3.x with ``torch.compile`` where a detector computes and does not yet decide: its backbone and neck."""

from __future__ import annotations

from typing import Any

import torch

from parity.cases.base import Case
from parity.engines.mmdet3 import Mmdet3Engine


class Mmdet3CompiledEngine(Mmdet3Engine):
    name = "mmdet3_compiled"

    def build(self, case: Case, dtype: torch.dtype) -> Any:
        model = super().build(case, dtype)
        for part in ("backbone", "neck"):
            module = getattr(model, part, None)
            if module is not None:
                # The method, not the module: stages are called and watched by their methods.
                module.forward = torch.compile(module.forward, dynamic=False)
        return model
