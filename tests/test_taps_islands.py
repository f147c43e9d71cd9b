"""Requests for float32 in a float64 run are found, and answered in float64 where that is asked for."""

from __future__ import annotations

import pytest
import torch

from parity.taps.islands import IslandTaps


def test_a_request_for_float32_is_noted_with_its_site() -> None:
    with IslandTaps(lambda: "head", promote=False) as taps:
        result = torch.zeros(2).double().float()
    ((stage, site),) = taps.found
    assert stage == "head"
    assert site.startswith("test_taps_islands.py:")
    assert site.endswith("test_a_request_for_float32_is_noted_with_its_site: .float()")
    assert result.dtype is torch.float32


REQUESTS = {
    ".float()": lambda t: t.float(),
    ".to(float32)": lambda t: t.to(torch.float32),
    ".type(float32)": lambda t: t.type(torch.float32),
    ".cumsum(float32)": lambda t: t.cumsum(0, dtype=torch.float32),
    ".new_zeros(float32)": lambda t: t.new_zeros(2, dtype=torch.float32),
    "torch.arange(float32)": lambda t: torch.arange(3, dtype=torch.float32),
    "torch.linspace(float32)": lambda t: torch.linspace(0, 1, 3, dtype=torch.float32),
    "torch.zeros_like(float32)": lambda t: torch.zeros_like(t, dtype=torch.float32),
    "torch.tensor(float32)": lambda t: torch.tensor([1.0], dtype=torch.float32),
}


@pytest.mark.parametrize("request_text", sorted(REQUESTS))
@pytest.mark.parametrize("promote", [False, True])
def test_every_request_is_noted_and_answered_as_asked(request_text: str, promote: bool) -> None:
    with IslandTaps(lambda: "head", promote=promote) as taps:
        result = REQUESTS[request_text](torch.ones(2).double())
    assert result.dtype is (torch.float64 if promote else torch.float32)
    assert [site.rsplit(": ", 1)[1] for _, site in taps.found] == [request_text]


@pytest.mark.parametrize("request_text", sorted(REQUESTS))
def test_outside_of_stages_nothing_is_noted_nor_promoted(request_text: str) -> None:
    with IslandTaps(lambda: None, promote=True) as taps:
        result = REQUESTS[request_text](torch.ones(2).double())
    assert result.dtype is torch.float32
    assert not taps.found


def test_requests_for_another_dtype_are_left_alone() -> None:
    with IslandTaps(lambda: "head", promote=True) as taps:
        assert torch.ones(2).to(torch.float16).dtype is torch.float16
        assert torch.arange(3, dtype=torch.int64).dtype is torch.int64
    assert not taps.found


def test_a_site_is_counted_as_often_as_it_asks() -> None:
    with IslandTaps(lambda: "head", promote=True) as taps:
        for _ in range(3):
            torch.ones(1).float()
    assert list(taps.found.values()) == [3]
