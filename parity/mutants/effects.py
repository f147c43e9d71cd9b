"""Whether a benign change changes anything where it runs: one that does not proves nothing by raising no alarm."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from parity.engines import numerics
from parity.engines.session import Session
from parity.errors import ParityError
from parity.mutants.bench import Bench
from parity.mutants.benign import Benign as Change
from parity.records.layout import StoredTensors
from parity.records.store import Record
from parity.taps.stages import replaced

# Settings that no kernel of a CPU reads.
CUDA_ALONE = ("matmul_tf32", "cudnn_tf32", "cudnn", "cudnn_benchmark", "cudnn_deterministic", "autocast_cuda")
ALIGNED = 64  # bytes: where torch puts a new tensor


@dataclass
class Watched:
    """What one run of the detector was seen to do.

    Attributes:
        settings: those that the run reads, as they were in force when the model was called.
        modules: each module's class, switches and hooks, and whose forward is replaced.
        parameters: each parameter's place and strides, and whether it needs a gradient.
        operators: the kernels that were called, in order, with their switches and numbers.
        layouts: shape, strides and place of their tensors.
        bits: name -> digest of every tensor that the run gave.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    modules: list[tuple[Any, ...]] = field(default_factory=list)
    parameters: list[tuple[Any, ...]] = field(default_factory=list)
    operators: list[str] = field(default_factory=list)
    layouts: list[tuple[Any, ...]] = field(default_factory=list)
    bits: dict[str, str] = field(default_factory=dict)


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the operators that are called while it is entered."""

    def __init__(self, watched: Watched) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watched = watched

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        settings = [each for each in given if isinstance(each, (bool, int, float, str))]
        self.watched.operators.append(f"{func}{settings}")
        tensors = [each for each in given if type(each) in (Tensor, torch.nn.Parameter)]
        self.watched.layouts += [_layout(tensor) for tensor in tensors]
        return func(*args, **(kwargs or {}))


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.data_ptr() % ALIGNED if tensor.numel() else 0


def effects(bench: Bench, changes: Iterable[Change]) -> Iterator[tuple[Change, str | ParityError]]:
    """Yield each change, applied for as long as the caller holds it, with what it does to a run: "" is nothing.

    A run that the change stops is an error, and the next change follows all the same.
    """
    record = record_for(bench)
    clean = reference(bench, record)
    for change in changes:
        session, _ = bench.checker.prepared(record, "fp32")
        if parameters(session.model) != clean.parameters:  # the change before has put them back in another place
            clean = reference(bench, record)
        with change.apply():
            try:
                seen: str | ParityError = difference(watch(bench, record), clean)
            except ParityError as error:
                seen = error
            yield change, seen


def reference(bench: Bench, record: Record) -> Watched:
    """Return what a run of the unchanged engine does, without what two of them do not have in common."""
    first, second = watch(bench, record), watch(bench, record)
    return Watched(
        {name: value for name, value in first.settings.items() if second.settings[name] == value},
        first.modules if first.modules == second.modules else [],
        first.parameters if first.parameters == second.parameters else [],
        first.operators if first.operators == second.operators else [],
        first.layouts if first.layouts == second.layouts else [],
        {name: digest for name, digest in first.bits.items() if second.bits.get(name) == digest},
    )


def difference(actual: Watched, expected: Watched) -> str:
    """Return in words what of a run is not as in ``expected``; what is empty there is not looked at."""
    words = [
        f"setting {name}: {actual.settings[name]} for {value}"
        for name, value in expected.settings.items()
        if actual.settings[name] != value
    ]
    if expected.operators and actual.operators != expected.operators:
        words.append(f"other operators: {len(actual.operators)} calls for {len(expected.operators)}")
    elif expected.layouts and actual.layouts != expected.layouts:
        words.append("tensors laid out otherwise")
    words += [
        f"another state of the model's {what}"
        for what in ("modules", "parameters")
        if getattr(expected, what) and getattr(actual, what) != getattr(expected, what)
    ]
    moved = [name for name, digest in expected.bits.items() if actual.bits.get(name) != digest]
    if moved:
        words.append(f"bits of {len(moved)} of {len(expected.bits)} tensors")
    return "; ".join(words)


def watch(bench: Bench, record: Record) -> Watched:
    """Return what a float32 run of the whole detector on a record does, by the truth's choices."""
    session, batch = bench.checker.prepared(record, "fp32")
    watched = Watched()
    with numerics.in_force({"tf32": False}), _watching(session, watched):  # as a check has it
        run = session.cascade(batch, forced=_choices(record, bench.checker.stored(record)))
    watched.bits = {name: _digest(tensor) for name, tensor in run.tensors.items()}
    return watched


def record_for(bench: Bench) -> Record:
    """Return the smallest record of several images, in which the order of images can be seen; or the smallest."""
    several = [record for record in bench.records if len(record.keys(stage="preprocess", role="image")) > 1]
    return (several or bench.records)[0]


def _choices(record: Record, stored: StoredTensors) -> dict[str, Tensor]:
    return {name: stored[f"{name}/chosen"] for name in record.manifest["decisions"]}


@contextmanager
def _watching(session: Session, watched: Watched) -> Iterator[None]:
    """Watch the engine's calls of its model: what is set around them is in force there, whoever set it."""
    predict = session.engine.predict

    def watching(model: Any, image: Tensor, metas: Mapping[str, Tensor]) -> Any:
        watched.settings = settings(session.engine.device)
        watched.modules += modules(model)
        watched.parameters += parameters(model)
        with Operators(watched):
            return predict(model, image, metas)

    with replaced(session.engine, "predict", watching):
        yield


def settings(device: str) -> dict[str, Any]:
    """Return the settings that a run on this device reads, as they are in force now."""
    found: dict[str, Any] = dict(numerics.read())
    found["onednn_deterministic"] = torch.backends.mkldnn.deterministic
    found["gradients"] = torch.is_grad_enabled()
    found["inference_mode"] = torch.is_inference_mode_enabled()
    return {name: value for name, value in found.items() if device != "cpu" or name not in CUDA_ALONE}


def modules(model: Any) -> list[tuple[Any, ...]]:
    """Return of each module what a change may set: its class, switches and hooks, and that its forward is replaced."""
    return [
        (
            *(name, type(each).__name__, each.training, getattr(each, "inplace", None)),
            *(len(each._forward_hooks), len(each._forward_pre_hooks), "forward" in vars(each)),
        )
        for name, each in model.named_modules()
    ]


def parameters(model: Any) -> list[tuple[Any, ...]]:
    """Return where each parameter and buffer lies, how, and whether it needs a gradient."""
    values = model.state_dict(keep_vars=True)
    return [(name, each.data_ptr(), each.stride(), each.requires_grad) for name, each in values.items()]


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
