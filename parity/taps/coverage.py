"""Which modules of a detector run in no stage: what they compute is not compared, so their weights are not proven.

Runs in both interpreters (Python 3.8, torch 1.9).
"""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any, Callable, List, Sequence, Set

from parity.taps.stages import replaced, resolve


class Coverage:
    """Watches the modules that own parameters while the block runs; ``paths`` are the calls of all stages."""

    def __init__(self, model: Any, paths: Sequence[str]) -> None:
        self.model = model
        self._paths = paths
        self._depth = 0
        self._inside: Set[str] = set()
        self._outside: Set[str] = set()
        self._undo = ExitStack()

    def __enter__(self) -> Coverage:
        for name, module in self.model.named_modules():
            if name and any(True for _ in module.parameters(recurse=False)):
                self._undo.enter_context(replaced(module, "forward", self._noting(module.forward, name)))
        for path in dict.fromkeys(self._paths):  # around those: a call may be the forward of such a module
            owner, attribute = resolve(self.model, path)
            self._undo.enter_context(replaced(owner, attribute, self._entering(getattr(owner, attribute))))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._undo.close()

    def _entering(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def entering(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1

        return entering

    def _noting(self, forward: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(forward)
        def noting(*args: Any, **kwargs: Any) -> Any:
            (self._inside if self._depth else self._outside).add(name)
            return forward(*args, **kwargs)

        return noting

    def left_out(self) -> List[str]:
        """Return the parts (``roi_head.mask_head``) of which modules ran, and never within a call of a stage."""
        return list(dict.fromkeys(part(name) for name in sorted(self._outside - self._inside)))


def part(module: str) -> str:
    """Return the part of the detector that a module belongs to.

    >>> part("roi_head.mask_head.convs.0.conv"), part("neck.convs.0")
    ('roi_head.mask_head', 'neck')
    """
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "roi_head" else 1])
