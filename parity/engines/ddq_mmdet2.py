"""DDQ FCN and DDQ R-CNN as their authors published them: mmdet 2.22.0, with ``projects/`` from the user's checkout."""

from __future__ import annotations

import importlib
from typing import Any

from parity.cases.base import Case
from parity.engines.legacy import require_project_file
from parity.engines.mmdet2 import Mmdet2Engine


class DdqMmdet2Engine(Mmdet2Engine):
    name = "ddq_mmdet2"
    checkout = "https://github.com/jshilong/DDQ, branch main"
    checkout_file = "projects/models/ddq_fcn_head.py"

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        require_project_file(root, self.checkout_file, checkout=self.checkout)
        super().__init__(root, device)

    def config(self, case: Case) -> Any:
        importlib.import_module("projects")  # registers the detectors
        return super().config(case)
