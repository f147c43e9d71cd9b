"""Planted bugs and benign changes: what the checks catch, and what raises no alarm."""

from parity.mutants.base import Mutant

__all__ = ["Mutant"]
