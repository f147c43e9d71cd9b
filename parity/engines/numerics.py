"""The settings that numbers depend on: put in force, read back, restored. Runs in both interpreters.

Every setting is read from where it takes effect, after it was set: a record or a result states nothing else. What a
torch does not have (1.9 knows no matmul precision) is None.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Union

import torch

from parity.errors import ParityError

Value = Union[bool, int, str, None]
Settings = Dict[str, Value]

# Not a setting but two or three of them: TF32 in convolutions and in products of matrices.
TF32 = "tf32"
_SUBNORMAL = 1e-40  # a float32 below the smallest normal one: the processor takes it for 0 where it flushes


class Setting(NamedTuple):
    """How one setting is read, from where it takes effect, and how it is set."""

    read: Callable[[], Value]
    write: Callable[[Any], Any]


def _read_onednn() -> bool:
    return bool(torch._C._get_mkldnn_enabled())


def _write_onednn(value: bool) -> None:
    # Not by `torch.backends.mkldnn.flags`: as a context it has to live as long as the setting, or it undoes itself.
    torch._C._set_mkldnn_enabled(value)


def _read_cudnn_tf32() -> Value:
    precise = getattr(torch.backends.cudnn, "conv", None)  # tells what is in force, whichever way it was set
    return torch.backends.cudnn.allow_tf32 if precise is None else precise.fp32_precision == "tf32"


def _write_cudnn_tf32(value: bool) -> None:
    torch.backends.cudnn.allow_tf32 = value


def _read_matmul_tf32() -> Value:
    try:
        return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")
    except (AttributeError, AssertionError):  # an earlier torch
        return bool(torch.backends.cuda.matmul.allow_tf32)


def _write_matmul_tf32(value: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = value


def _read_matmul_precision() -> Value:
    if not hasattr(torch, "get_float32_matmul_precision"):
        return None
    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:  # set for the CPU and for CUDA apart: no one word says it
        return "mixed"


def _write_matmul_precision(value: str) -> None:
    if value != "mixed":
        torch.set_float32_matmul_precision(value)


def _of_cudnn(name: str) -> Setting:
    return Setting(
        lambda: bool(getattr(torch.backends.cudnn, name)), lambda value: setattr(torch.backends.cudnn, name, value)
    )


def _read_deterministic() -> Value:
    if torch.are_deterministic_algorithms_enabled():
        lenient = getattr(torch, "is_deterministic_algorithms_warn_only_enabled", None)
        return "warn" if lenient is not None and lenient() else True
    return False


def _write_deterministic(value: Union[bool, str]) -> None:
    how = {"warn_only": True} if value == "warn" else {}
    torch.use_deterministic_algorithms(bool(value), **how)


def _of_autocast(device: str) -> Setting:
    if hasattr(torch, "get_autocast_dtype"):  # from then on the device is an argument
        return Setting(
            lambda: bool(torch.is_autocast_enabled(device)), lambda value: torch.set_autocast_enabled(device, value)
        )
    if device == "cpu":
        return Setting(lambda: None, lambda value: None)
    return Setting(lambda: bool(torch.is_autocast_enabled()), lambda value: torch.set_autocast_enabled(value))


def _read_flush_denormal() -> bool:
    # torch tells nobody whether it does: a product tells.
    product = torch.tensor([_SUBNORMAL * 1e3], dtype=torch.float32) * torch.tensor([1e-3], dtype=torch.float32)
    return bool((product == 0.0).item())


# In the order in which they are set: the precision of products sets their TF32 as well.
SETTINGS: Dict[str, Setting] = {
    "threads": Setting(torch.get_num_threads, torch.set_num_threads),
    "onednn": Setting(_read_onednn, _write_onednn),
    "matmul_precision": Setting(_read_matmul_precision, _write_matmul_precision),
    "matmul_tf32": Setting(_read_matmul_tf32, _write_matmul_tf32),
    "cudnn_tf32": Setting(_read_cudnn_tf32, _write_cudnn_tf32),
    "cudnn": _of_cudnn("enabled"),
    "cudnn_benchmark": _of_cudnn("benchmark"),
    "cudnn_deterministic": _of_cudnn("deterministic"),
    "deterministic_algorithms": Setting(_read_deterministic, _write_deterministic),
    "autocast_cpu": _of_autocast("cpu"),
    "autocast_cuda": _of_autocast("cuda"),
    "flush_denormal": Setting(_read_flush_denormal, torch.set_flush_denormal),
}


def read() -> Settings:
    """Return every setting as it is in force now; None for one that this torch does not have."""
    return {name: setting.read() for name, setting in SETTINGS.items()}


def with_tf32_said(asked: Mapping[str, Value]) -> Settings:
    """Return what is asked for with ``tf32`` as the settings that it stands for in this torch."""
    said = {name: value for name, value in asked.items() if name != TF32}
    if TF32 in asked:
        allowed = bool(asked[TF32])
        if _read_matmul_precision() is not None:
            said.setdefault("matmul_precision", "high" if allowed else "highest")
        said.setdefault("matmul_tf32", allowed)
        said.setdefault("cudnn_tf32", allowed)
    return said


def require_tf32(device: str, *, tf32: bool) -> None:
    """Raise ``ParityError`` where TF32 is asked for on a device that has none."""
    if tf32 and not device.startswith("cuda"):
        raise ParityError(f"--tf32: TF32 is arithmetic of CUDA devices, --device {device} has none; leave it out")


class Numerics:
    """Puts settings in force, and remembers what they were before the first time."""

    def __init__(self) -> None:
        self._before: Settings = {}

    def put(self, asked: Mapping[str, Value]) -> Settings:
        """Put settings in force, by name (see ``SETTINGS``; ``tf32`` for all of TF32); return all as read back.

        Raises:
            ParityError: there is no such setting, or one that was set is not the one read back.
        """
        said = with_tf32_said(asked)
        unknown = sorted(said.keys() - SETTINGS.keys())
        if unknown:
            raise ParityError(f"no such numerical setting: {unknown[0]}; there are {', '.join((*SETTINGS, TF32))}")
        before = read()
        for name in SETTINGS:
            if name in said and before[name] not in (None, said[name]):
                self._before.setdefault(name, before[name])
                SETTINGS[name].write(said[name])
        settings = read()
        for name, value in said.items():
            if settings[name] != value:
                raise ParityError(
                    f"torch {torch.__version__}: {name} was set to {value} and is {settings[name]}: what would be run"
                    " is not what was asked for"
                )
        return settings

    def restore(self) -> None:
        """Put back what ``put`` changed."""
        before, self._before = self._before, {}
        for name in SETTINGS:
            if name in before:
                SETTINGS[name].write(before[name])


@contextmanager
def in_force(asked: Mapping[str, Value]) -> Iterator[Settings]:
    """Put settings in force for a block; yield all of them as read back (see ``Numerics.put``)."""
    numerics = Numerics()
    try:
        yield numerics.put(asked)
    finally:
        numerics.restore()
