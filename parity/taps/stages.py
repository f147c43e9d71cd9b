"""Watch the stage boundaries of a running model.

The taps wrap a handful of bound methods on the instances themselves and take the wrappers off again;
nothing of the model's classes is touched. What is kept is a clone, taken the moment it passes: many
layers work in place (ResNet's ReLU), so a reference would change afterwards.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from parity.cases.base import Call, Stage
from parity.cases.patterns import item, match
from parity.taps.generators import GeneratorWatch

Tensors = Dict[str, torch.Tensor]
StateAccess = Dict[str, Tuple[Callable[[Any], torch.Tensor], Callable[[Any, torch.Tensor], None]]]


def resolve(model: Any, path: str) -> Tuple[Any, str]:
    """Return the object and the attribute that hold the method at ``path``; see ``Call.path``."""
    if ":" in path:
        module, function = path.split(":")
        return importlib.import_module(module), function
    *parents, last = path.split(".")
    owner = functools.reduce(_child, parents, model)
    target = _child(owner, last)
    return (target, "forward") if isinstance(target, nn.Module) else (owner, last)


def _child(owner: Any, name: str) -> Any:
    return owner[int(name)] if name.isdigit() else getattr(owner, name)


@contextmanager
def replaced(owner: Any, attribute: str, value: Any) -> Iterator[None]:
    """Set an attribute of one object for the time of the block, then leave the object as it was."""
    absent = object()
    before = vars(owner).get(attribute, absent)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        if before is absent:
            delattr(owner, attribute)
        else:
            setattr(owner, attribute, before)


class StageTaps:
    """Collects the named tensors that the given stages write while the block runs.

    What a stage reads is what earlier ones wrote; that nothing happens in between is proven when a
    record is frozen, by replaying every stage on those values.

    Attributes:
        tensors: name -> clone, in the order in which they came.
        stage: the stage that is running, ``outside`` outside of any; decisions take their name from it.
        produced: stage -> names that it wrote.
    """

    def __init__(
        self, model: Any, stages: Sequence[Stage], state: StateAccess, *, outside: Optional[str] = None
    ) -> None:
        self.model = model
        self.stages = stages
        self.state = state
        self.tensors: Tensors = {}
        self.stage: Optional[str] = outside
        self.watch = GeneratorWatch(outside, next(iter(stages)).name if stages else "")
        self.produced: Dict[str, Tuple[str, ...]] = {}
        self._wrappers = ExitStack()

    def __enter__(self) -> "StageTaps":
        self._wrappers.enter_context(self.watch)
        for stage in self.stages:
            for call in stage.calls:
                owner, attribute = resolve(self.model, call.path)
                wrapper = self._observed(getattr(owner, attribute), stage, call)
                self._wrappers.enter_context(replaced(owner, attribute, wrapper))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._wrappers.close()

    def _observed(self, method: Callable[..., Any], stage: Stage, call: Call) -> Callable[..., Any]:
        signature = inspect.signature(method)
        calls = itertools.count()

        @functools.wraps(method)
        def observed(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs).arguments
            if not _applies(call, arguments):
                return method(*args, **kwargs)
            outer = self.stage
            self._enter_stage(stage.name)
            try:
                result = self._watched(method, stage, call, calls, args, kwargs, arguments)
            except BaseException:
                self.stage = outer
                raise
            self._enter_stage(next((s.name for s in self.stages if s.begins_after == stage.name), outer))
            return result

        return observed

    def _enter_stage(self, name: Optional[str]) -> None:
        self.watch.entered(name)
        self.stage = name

    def _watched(
        self,
        method: Callable[..., Any],
        stage: Stage,
        call: Call,
        calls: Iterator[int],
        args: Tuple[Any, ...],
        kwargs: Mapping[str, Any],
        arguments: Mapping[str, Any],
    ) -> Any:
        """Make the call and keep what the declaration names."""
        found = match(call.writes, arguments) if call.of_arguments else {}
        result = method(*args, **kwargs)
        if not call.of_arguments:
            found = match(call.writes, result)
        if call.each_image:
            image = next(calls)
            found = {item(name, image): tensor for name, tensor in found.items()}
        if call is stage.calls[-1]:
            found.update({name: self.state[name][0](self.model) for name in stage.writes_state})
        self._keep(found, stage)
        return result

    def _keep(self, found: Tensors, stage: Stage) -> None:
        for name, value in found.items():  # one for the stage's own later calls may be any object
            self.tensors[name] = value.detach().clone() if torch.is_tensor(value) else value
        public = tuple(name for name in found if not name.startswith("_"))
        self.produced[stage.name] = self.produced.get(stage.name, ()) + public


def _applies(call: Call, arguments: Mapping[str, Any]) -> bool:
    """Whether this is the call that the declaration means, where several stages share its path."""
    return all(arguments.get(name) == call.reads[name].value for name in call.when)  # type: ignore[union-attr]
