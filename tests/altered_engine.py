"""The new engine with a change in its config, for tests of what is read from one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parity.cases.base import Case
from parity.engines.mmdet3 import Mmdet3Engine

Change = Callable[[Any], None]


class Altered(Mmdet3Engine):
    """The new engine with a mistake in its config."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def config(self, case: Case) -> Any:
        """Return the case's config after the change."""
        config = super().config(case)
        self.change(config)
        return config
