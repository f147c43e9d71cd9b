"""AP of both engines on COCO val2017: `pytest -m full_ap --gpus 8`; without COCO, on a small drawn one."""

from typing import Any

import pytest


@pytest.mark.full_ap
def test_full_ap(ap_result: Any) -> None:
    """All twelve figures are the same, the legacy engine's AP is the one reported, and the detections match."""
    from parity.ap.result import failure_message  # here: collection imports nothing heavy

    if not ap_result.passes:
        pytest.fail(failure_message(ap_result), pytrace=False)
