"""Whether a call of pytest is meant for full-val AP."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

MARKER = "full_ap"
SUITE = Path(__file__).resolve().parents[1] / "suites" / "test_full_ap.py"


def asked_for(config: pytest.Config) -> bool:
    """Return whether ``-m`` names the suite, or it is named as a file."""
    named = any(argument.split("::")[0].endswith(SUITE.name) for argument in config.args)
    return named or bool(re.search(rf"(?<!not ){MARKER}\b", str(config.getoption("markexpr"))))
