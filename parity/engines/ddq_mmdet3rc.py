"""DDQ DETR as its authors published it: mmdet 3.0.0rc6, with ``projects/`` from the user's checkout."""

from __future__ import annotations

import sys

from parity.engines.legacy import make_cuda_calls_harmless, require_project_file
from parity.engines.mmdet3 import Mmdet3Engine


class DdqMmdet3rcEngine(Mmdet3Engine):
    name = "ddq_mmdet3rc"
    runs_here = False
    checkout = "https://github.com/jshilong/DDQ, branch ddq_detr"
    checkout_file = "projects/models/ddq_detr.py"

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        super().__init__(root, device)
        require_project_file(root, self.checkout_file, checkout=self.checkout)
        # Last, not first: the checkout also holds a copy of mmdet, and the registry's is the one that is pinned.
        sys.path.append(root)
        if device == "cpu":
            make_cuda_calls_harmless()
