"""One test a stage: the new engine against what the legacy one was frozen to compute."""

from typing import Any

import pytest

from parity.report.messages import failure_message


def test_stage(stage_result: Any) -> None:
    """The stage is the same: equal, within the legacy engine's own noise, every flip certified."""
    message = failure_message([stage_result], rerun=f'pytest parity -k "{stage_result.id}"')
    if not stage_result.verdict.passes:
        pytest.fail(message, pytrace=False)
