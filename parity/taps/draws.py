"""Random numbers that a training step draws: recorded from one engine, replayed in the other.

While the block runs, every function of torch that draws is answered by these taps: from the given
draws, or from a generator of their own. What is drawn by any other way leaves its trace in a global
generator, and ``taps.generators`` sees it there.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

import torch

from parity.taps.decisions import replaced_function

Shape = Tuple[int, ...]


class DrawTaps:
    """Names every draw by what is asked for and how many of those came before: ``randint(0,80).1``.

    Args:
        current_stage: tells which stage is running.
        given: name -> numbers to replay; one that is missing, or of another shape, is drawn anew, which the
            comparison then reports as extra or of wrong shape.
        seed: of the taps' own generator.

    Attributes:
        drawn: name -> the numbers the engine was given.
        stages: name -> the stage that drew it.
    """

    def __init__(
        self,
        current_stage: Callable[[], Optional[str]],
        given: Optional[Mapping[str, torch.Tensor]] = None,
        seed: int = 0,
    ) -> None:
        self.current_stage = current_stage
        self.given = given or {}
        self.drawn: Dict[str, torch.Tensor] = {}
        self.stages: Dict[str, str] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._counts: Dict[str, int] = {}
        self._patches = ExitStack()
        # Taken before anything is patched.
        self._makers: Dict[str, Callable[..., torch.Tensor]] = {
            "rand": torch.rand,
            "randn": torch.randn,
            "randint": torch.randint,
            "randperm": torch.randperm,
        }

    def __enter__(self) -> "DrawTaps":
        patch = self._patches.enter_context
        for name, wrap in (
            ("rand", self._sized("rand")),
            ("randn", self._sized("randn")),
            ("rand_like", self._like("rand")),
            ("randn_like", self._like("randn")),
            ("randint", self._randint),
            ("randint_like", self._randint_like),
            ("randperm", self._randperm),
        ):
            patch(replaced_function(torch, name, wrap))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._patches.close()

    def _draw(self, kind: str, shape: Shape, bounds: Sequence[int], like: Dict[str, Any]) -> torch.Tensor:
        """Return the numbers of one call, of the asked dtype and device."""
        label = f"{kind}({','.join(map(str, bounds))})"
        count = self._counts.get(label, 0)
        self._counts[label] = count + 1
        name = f"{label}.{count}"
        numbers = self.given.get(name)
        if numbers is None or tuple(numbers.shape) != shape:
            numbers = self._made(kind, shape, bounds)
        self.drawn[name] = numbers
        self.stages[name] = self.current_stage() or ""
        dtype = like.get("dtype")
        if dtype is None:
            dtype = torch.get_default_dtype() if numbers.is_floating_point() else numbers.dtype
        drawn = numbers.to(device=like.get("device"), dtype=dtype, copy=True)
        return drawn.requires_grad_() if like.get("requires_grad") else drawn

    def _made(self, kind: str, shape: Shape, bounds: Sequence[int]) -> torch.Tensor:
        """Draw anew; uniform and normal numbers are exact in float32, so that both dtypes get the same ones."""
        make = self._makers[kind]
        if kind == "randint":
            return make(bounds[0], bounds[1], shape, generator=self._generator)
        if kind == "randperm":
            return make(bounds[0], generator=self._generator)
        return make(shape, generator=self._generator, dtype=torch.float32).double()

    def _sized(self, kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def draw(*size: Any, **options: Any) -> torch.Tensor:
                shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size or options["size"]
                return self._draw(kind, tuple(shape), (), options)

            return draw

        return wrap

    def _like(self, kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def draw(input: torch.Tensor, **options: Any) -> torch.Tensor:
                return self._draw(kind, tuple(input.shape), (), {**_as(input), **options})

            return draw

        return wrap

    def _randint(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def randint(*bounds: Any, **options: Any) -> torch.Tensor:
            *limits, size = bounds if "size" not in options else (*bounds, options.pop("size"))
            return self._draw("randint", tuple(size), _bounds(*limits, **options), options)

        return randint

    def _randint_like(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def randint_like(input: torch.Tensor, *limits: int, **options: Any) -> torch.Tensor:
            return self._draw("randint", tuple(input.shape), _bounds(*limits, **options), {**_as(input), **options})

        return randint_like

    def _randperm(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def randperm(n: int, **options: Any) -> torch.Tensor:
            return self._draw("randperm", (n,), (n,), options)

        return randperm


def _as(tensor: torch.Tensor) -> Dict[str, Any]:
    return {"dtype": tensor.dtype, "device": tensor.device}


def _bounds(*limits: int, **options: Any) -> Tuple[int, int]:
    """Return (low, high) of a ``randint`` call, whose low may be left out.

    >>> _bounds(80), _bounds(1, 5), _bounds(low=0, high=2)
    ((0, 80), (1, 5), (0, 2))
    """
    if len(limits) == 2:
        return limits[0], limits[1]
    if "high" in options:
        return (limits[0] if limits else options.get("low", 0)), options["high"]
    return 0, limits[0]
