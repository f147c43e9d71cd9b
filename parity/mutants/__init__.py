"""Planted bugs and benign changes: what the harness catches, and what it does not cry wolf about."""

from parity.mutants.base import Mutant

__all__ = ["Mutant"]
