"""One test a case: situations that nobody thought of, run live in both engines (``pytest parity --fuzz 50``)."""

import argparse
from typing import Any

import pytest

from parity.errors import ParityError


@pytest.fixture
def fuzz_options(request: pytest.FixtureRequest) -> argparse.Namespace:
    """Return the options of ``parity fuzz``, from those of pytest."""
    option = request.config.getoption
    return argparse.Namespace(
        examples=option("fuzz"),
        seed=option("fuzz_seed"),
        save_failing=option("save_failing"),
        legacy_root=option("legacy_root") or "",
        legacy_python=option("legacy_python"),
        dtype=option("dtype") or "fp64",
        kind=None,
        situation=None,
        time_limit=None,
    )


@pytest.mark.legacy
def test_fuzz(fuzzed_case: Any, fuzz_options: argparse.Namespace, request: pytest.FixtureRequest) -> None:
    """No drawn situation tells the engines apart."""
    from parity.fuzz.command import fuzz_live, open_live  # here: torch must not be imported by collection

    try:
        live = open_live(fuzzed_case, fuzz_options)
    except ParityError as error:
        if request.config.getoption("case"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with live:
        found = fuzz_live(live, fuzz_options)
    print("\n".join(found.lines))
    if not found.passed:
        pytest.fail("\n".join(found.lines), pytrace=False)
