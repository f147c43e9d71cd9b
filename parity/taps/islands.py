"""Find the float32 islands of a float64 run, and lift them to float64.

An island is a place where code asks for float32 by name (``.float()``, ``dtype=torch.float32``) in the
middle of a float64 run: positions, valid ratios, grids. It rounds at 1e-7, which hides everything the
float64 run is there to prove. While the block runs, such a request from a stage is noted with its file
and line and, where ``promote`` says so, answered in float64. Both engines are treated alike.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any, Callable, Optional, Sequence, Tuple, Union

import torch

from parity.taps.decisions import replaced_function

TENSOR_METHODS = (
    "to",
    "type",
    "cumsum",
    "cumprod",
    "sum",
    "mean",
    "prod",
    "softmax",
    "log_softmax",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_tensor",
)
FUNCTIONS = (
    "arange",
    "linspace",
    "zeros",
    "ones",
    "full",
    "empty",
    "tensor",
    "as_tensor",
    "eye",
    "rand",
    "randn",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "cumsum",
    "sum",
    "mean",
    "softmax",
    "log_softmax",
)


# All islands, none, or those at the given places.
Promote = Union[bool, Sequence[str]]


def place(site: str) -> str:
    """Return an island's site without its line number, which differs between versions.

    >>> place("deformable_detr.py:436 get_valid_ratio: .float()")
    'deformable_detr.py get_valid_ratio: .float()'
    """
    file, rest = site.split(":", 1)
    return f"{file} {rest.split(' ', 1)[1]}"


class IslandTaps:
    """Notes every request for float32 made inside a stage: ``found[stage, site]`` counts them.

    A site reads ``deformable_detr.py:231 get_valid_ratio: .float()``; it names package files by
    their last part only, so that two machines write the same.
    """

    def __init__(self, current_stage: Callable[[], Optional[str]], *, promote: Promote) -> None:
        self.current_stage = current_stage
        self.promote = promote
        self.found: "Counter[Tuple[str, str]]" = Counter()
        self._patches = ExitStack()

    def __enter__(self) -> "IslandTaps":
        patch = self._patches.enter_context
        patch(replaced_function(torch.Tensor, "float", self._float))
        for name in TENSOR_METHODS:
            patch(replaced_function(torch.Tensor, name, self._asked(f".{name}")))
        for name in FUNCTIONS:
            patch(replaced_function(torch, name, self._asked(f"torch.{name}")))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._patches.close()

    def _note(self, request: str) -> bool:
        """Note a request; return whether it is to be answered in float64."""
        stage = self.current_stage()
        if stage is None:
            return False
        caller = sys._getframe(2)
        code = caller.f_code
        file = code.co_filename.rsplit("/", 1)[-1]
        site = f"{file}:{caller.f_lineno} {code.co_name}: {request}"
        self.found[stage, site] += 1
        return self.promote if isinstance(self.promote, bool) else place(site) in self.promote

    def _float(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def to_float(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return tensor.double() if self._note(".float()") else original(tensor, *args, **kwargs)

        return to_float

    def _asked(self, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def asked(*args: Any, **kwargs: Any) -> Any:
                wants = any(value is torch.float32 for value in args) or kwargs.get("dtype") is torch.float32
                if wants and self._note(f"{name}(float32)"):
                    args = tuple(torch.float64 if value is torch.float32 else value for value in args)
                    if kwargs.get("dtype") is torch.float32:
                        kwargs["dtype"] = torch.float64
                return original(*args, **kwargs)

            return asked

        return wrap
