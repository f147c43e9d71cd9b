"""Carry weights from the legacy engine's names to the new engine's, and account for every key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from parity.errors import ParityError


def convert(state: Mapping[str, Tensor], *, target_names: Iterable[str]) -> dict[str, Tensor]:
    """Return the state dict of the new engine.

    DDQ DETR has the same names in both engines, so no rule is needed; what this adds is the ledger: a
    source key without a target, or a target without a source, is an error and not a warning.

    Raises:
        ParityError: some key is unaccounted for; the first few of each side are named.
    """
    targets = set(target_names)
    unused, unfilled = sorted(state.keys() - targets), sorted(targets - state.keys())
    if unused or unfilled:
        raise ParityError(
            f"weights: {len(unused)} legacy keys have no place {unused[:3]},"
            f" {len(unfilled)} new keys get no value {unfilled[:3]}"
        )
    return dict(state)
