"""Ways to plant a bug in the new engine for the time of a block, without touching any of its files."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from parity.engines.session import Session
from parity.errors import ParityError
from parity.mutants.edits import Edit, recompiled
from parity.taps.stages import replaced
from parity.weights.perturb import swapped

Block = AbstractContextManager[Any]

# Every way in which a session runs its model.
RUNS = ("preprocess", "replay", "cascade", "bare", "train")
# Where a function of the engine may have been imported to by name.
PACKAGES = ("mmdet", "mmcv", "mmengine", "parity")


@dataclass(frozen=True)
class Plant:
    """Calling it gives the block inside which the bug is there.

    Attributes:
        rebuild: whether it shows only in a detector that is built inside the block.
    """

    make: Callable[[], Block]
    rebuild: bool = False

    def __call__(self) -> Block:
        """Return a new block."""
        return self.make()


def together(*plants: Callable[[], Block]) -> Plant:
    """Return several bugs as one."""

    @contextmanager
    def block() -> Iterator[None]:
        with ExitStack() as stack:
            for plant in plants:
                stack.enter_context(plant())
            yield

    return Plant(block, rebuild=any(getattr(plant, "rebuild", True) for plant in plants))


def edited(target: str, *edits: Edit) -> Plant:
    """Return a function or method with its source changed; see ``parity.mutants.edits``.

    Args:
        target: ``package.module:function`` or ``package.module:Class.method``.
    """
    return wrapped(target, lambda original: recompiled(original, edits, target))


def wrapped(target: str, wrap: Callable[[Any], Any]) -> Plant:
    """Return a function or method replaced by ``wrap(original)``, wherever it was imported to by name."""

    @contextmanager
    def block() -> Iterator[None]:
        module_name, path = target.split(":")
        module = importlib.import_module(module_name)
        *owners, attribute = path.split(".")
        owner = functools.reduce(getattr, owners, module)
        original = getattr(owner, attribute)
        replacement = wrap(original)
        with ExitStack() as stack:
            if owners:
                static = isinstance(inspect.getattr_static(owner, attribute), staticmethod)
                stack.enter_context(replaced(owner, attribute, staticmethod(replacement) if static else replacement))
            else:
                stack.callback(_take_back, replacement, original)  # last of all: from where it was imported meanwhile
                for holder, name in _holders(original):
                    stack.enter_context(replaced(holder, name, replacement))
            yield

    return Plant(block)


def _take_back(replacement: Any, original: Any) -> None:
    """Give every module back a function that it was imported into by name while another one stood there."""
    for holder, name in _holders(replacement):
        setattr(holder, name, original)


def _holders(function: Any) -> list[tuple[Any, str]]:
    modules = [
        module for name, module in list(sys.modules.items()) if name.split(".")[0] in PACKAGES and module is not None
    ]
    return [(module, name) for module in modules for name, value in list(vars(module).items()) if value is function]


def called_with(target: str, **arguments: Any) -> Plant:
    """Return a function that is always called with these arguments; a function is given the present value."""

    def wrap(original: Any) -> Any:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name, value in arguments.items():
                bound.arguments[name] = value(bound.arguments[name]) if callable(value) else value
            return original(*bound.args, **bound.kwargs)

        return call

    return wrapped(target, wrap)


def result_of(target: str, change: Callable[[Any], Any]) -> Plant:
    """Return a function whose result is changed."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            return change(original(*args, **kwargs))

        return call

    return wrapped(target, wrap)


def on_model(edit: Callable[[Any], Block]) -> Plant:
    """Return a change of the built model: every run is made inside ``edit(model)``."""

    def within(run: Any) -> Any:
        @functools.wraps(run)
        def edited_run(session: Session, *args: Any, **kwargs: Any) -> Any:
            with edit(session.model):
                return run(session, *args, **kwargs)

        return edited_run

    @contextmanager
    def block() -> Iterator[None]:
        with ExitStack() as stack:
            for name in RUNS:
                stack.enter_context(replaced(Session, name, within(getattr(Session, name))))
            yield

    return Plant(block)


def modules_of(model: Any, pattern: str) -> list[Any]:
    """Return the modules whose path matches ``pattern`` (fnmatch; empty for the model itself)."""
    found = [module for name, module in model.named_modules() if fnmatchcase(name, pattern)]
    if not found:
        raise ParityError(f"the model has no module {pattern!r}")
    return found


def set_attribute(pattern: str, name: str, value: Any) -> Plant:
    """Return modules with an attribute set; a function is given the value that it has now."""

    @contextmanager
    def edit(model: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for module in modules_of(model, pattern):
                before = getattr(module, name)  # an unknown attribute is no bug but a slip here
                stack.enter_context(_assigned(module, name, value(before) if callable(value) else value, before))
            yield

    return on_model(edit)


@contextmanager
def _assigned(owner: Any, name: str, value: Any, before: Any) -> Iterator[None]:
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def output_of(pattern: str, change: Callable[[Any], Any]) -> Plant:
    """Return modules whose results are changed; modules at a stage's own border do not qualify."""

    @contextmanager
    def edit(model: Any) -> Iterator[None]:
        hooks = [
            module.register_forward_hook(lambda _module, _args, output: change(output))
            for module in modules_of(model, pattern)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    return on_model(edit)


def input_of(pattern: str, change: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> Plant:
    """Return modules whose arguments are changed: ``change(args, kwargs)`` gives the new pair."""

    @contextmanager
    def edit(model: Any) -> Iterator[None]:
        hooks = [
            module.register_forward_pre_hook(lambda _module, args, kwargs: change(args, kwargs), with_kwargs=True)
            for module in modules_of(model, pattern)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    return on_model(edit)


def _named(model: Any, name: str) -> Tensor:
    tensors: Mapping[str, Tensor] = model.state_dict(keep_vars=True)
    if name not in tensors:
        raise ParityError(f"the model has no parameter {name!r}")
    return tensors[name]


def swap(first: str, second: str) -> Plant:
    """Return two parameters of one shape in each other's place."""
    return on_model(lambda model: swapped(_named(model, first), _named(model, second)))


def parameter(name: str, change: Callable[[Tensor], Tensor]) -> Plant:
    """Return a parameter or statistic changed: ``change(value)`` of the same shape."""

    @contextmanager
    def edit(model: Any) -> Iterator[None]:
        tensor = _named(model, name)
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.copy_(change(kept))
        try:
            yield
        finally:
            with torch.no_grad():
                tensor.copy_(kept)

    return on_model(edit)


def swap_modules(path: str, first: int, second: int) -> Plant:
    """Return two modules of a list in each other's place: an index that is off."""

    @contextmanager
    def edit(model: Any) -> Iterator[None]:
        (modules,) = modules_of(model, path)

        def exchange() -> None:
            modules[first], modules[second] = modules[second], modules[first]

        exchange()
        try:
            yield
        finally:
            exchange()

    return on_model(edit)


def config(change: Callable[[Any], None]) -> Plant:
    """Return a change of the config, in place; the detector is built anew."""
    plant = wrapped("parity.engines.mmdet3:Mmdet3Engine.config", functools.partial(_with_config, change))
    return Plant(plant.make, rebuild=True)


def _with_config(change: Callable[[Any], None], original: Any) -> Any:
    @functools.wraps(original)
    def read(*args: Any) -> Any:
        content = original(*args)
        change(content)
        return content

    return read


def converted(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Plant:
    """Return a slip in the conversion of weights: ``change(state)`` of the new engine's state dict."""
    return Plant(result_of("parity.weights.conversion:convert", change).make, rebuild=True)
