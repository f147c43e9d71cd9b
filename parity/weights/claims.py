"""Tensors as a checkpoint's pickle describes them, and what of a pickle's names is known.

A pickle says of a tensor: which storage, from where, of which shape and strides. That is believed only once it has been
held against the storage that the file really has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parity.weights.opcodes import Damaged, Name, Odd, RefusedName, Table, mapping

Bytes = Callable[["Storage"], Tensor]


@dataclass(frozen=True)
class Storage:
    """A storage as a persistent id names it.

    Attributes:
        dtype: of its elements.
        size: how many.
    """

    key: str
    dtype: torch.dtype
    size: int


@dataclass(frozen=True)
class Claim:
    """A tensor as the pickle describes it; ``special`` says what it is if it is no plain one."""

    storage: Storage | None = None
    offset: int = 0
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    special: str = ""

    @property
    def bytes(self) -> int:
        """How much memory it takes once it is made."""
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self, read: Bytes) -> Tensor:
        """Return the tensor; what uses a part of its storage only is copied out of it.

        Args:
            read: returns a storage's bytes, a tensor of uint8.

        Raises:
            Damaged: the storage does not reach as far as the tensor.
        """
        if self.storage is None:
            raise Damaged(f"a tensor that is {self.special}")
        held = self.storage.size * self.storage.dtype.itemsize
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and (last + 1) * self.dtype.itemsize > held:
            raise Damaged(f"a tensor of shape {self.shape} in a storage of {held} bytes")
        if not math.prod(self.shape):
            return torch.empty(self.shape, dtype=self.dtype)
        whole = read(self.storage).view(self.dtype)
        view = whole.as_strided(self.shape, self.strides, self.offset)
        return view if self.bytes == held and view.is_contiguous() else view.contiguous().clone()


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise Damaged("a tensor with a size that is none")
    return value


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > 64:
        raise Damaged("a tensor with a shape that is none")
    return tuple(map(_number, values))


def _plain(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, dtype: torch.dtype | None = None) -> Claim:
    if not isinstance(storage, Storage):
        raise Damaged("a tensor without a storage")
    sizes, steps = _numbers(shape), _numbers(strides)
    if len(sizes) != len(steps):
        raise Damaged("a tensor with more sizes than strides, or fewer")
    return Claim(storage, _number(offset), sizes, steps, dtype or storage.dtype)


def _with_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Claim:
    return _plain(storage, offset, shape, strides, dtype=_dtype(dtype))


def _same(data: Any, *_: Any) -> Any:
    return data


def _of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    if not (isinstance(function, Name) and isinstance(arguments, tuple)):
        raise Damaged("a tensor without what makes it")
    return function.stand_in(*arguments)


def _special(what: str) -> Callable[..., Claim]:
    return lambda *_: Claim(special=what)


def _odd(what: str) -> Callable[..., Odd]:
    return lambda *_: Odd(what)


def _dictionary(*arguments: Any) -> dict[Any, Any]:
    """Stand for any dictionary: made empty, of another one, or of pairs."""
    given = arguments[0] if arguments else {}
    if isinstance(given, dict):
        return dict(given)
    if isinstance(given, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in given):
        return mapping(iter([(pair[0], pair[1]) for pair in given]))
    return {}


def _default_dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _attribute(owner: Any, name: Any) -> Odd:
    """Stand for ``getattr``, which newer mmengine pickles for ``HistoryBuffer.min`` and the like, and nothing else."""
    if not isinstance(owner, Name) or not owner.full.endswith(".HistoryBuffer"):
        raise RefusedName("builtins.getattr")
    return Odd("method")


def _bytes(text: Any, *_: Any) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else b""


def _reconstructed(kind: Any, *_: Any) -> Any:
    if not isinstance(kind, Name):
        raise Damaged("an object without a class")
    return kind.stand_in()


_DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.int8,
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
}
STORAGE_NAMES = {f"torch.{kind}Storage": dtype for kind, dtype in _STORAGES.items()} | {
    "torch.storage.UntypedStorage": torch.uint8,
    "torch.storage._UntypedStorage": torch.uint8,
}


def _dtype(name: Any) -> torch.dtype:
    if not isinstance(name, Name) or name.full not in _DTYPES:
        raise Damaged("a tensor with a dtype that is none")
    return _DTYPES[name.full]


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _plain,
    "torch._utils._rebuild_tensor_v2": _plain,
    "torch._utils._rebuild_tensor_v3": _with_dtype,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_meta_tensor_no_storage": _special("on the meta device, without values"),
    "torch._utils._rebuild_sparse_tensor": _special("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _special("sparse"),
    "torch._utils._rebuild_qtensor": _special("quantized"),
    "torch._utils._rebuild_nested_tensor": _special("nested"),
    "torch._utils._rebuild_device_tensor_from_numpy": _special("of a device that keeps no storage"),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _special("of a device that keeps no storage"),
}
_ODD = {
    "torch": (
        "Size",
        "device",
        "Tensor",
        "nn.parameter.Parameter",
        "nn.parameter.Buffer",
        "torch_version.TorchVersion",
    ),
    "torch.serialization": ("_get_layout",),
    "torch.storage": ("TypedStorage", "_TypedStorage"),
    "numpy": ("ndarray", "dtype"),
    "builtins": (
        "set",
        "frozenset",
        "complex",
        "bytearray",
        "slice",
        "range",
        "object",
        "int",
        "float",
        "str",
        "bytes",
    ),
    "mmengine": ("logging.history_buffer.HistoryBuffer", "config.config.Config"),
    "mmcv": ("utils.config.Config",),
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
}
_QUANTIZED = [f"torch.per_{of}_{kind}" for of in ("tensor", "channel") for kind in ("affine", "symmetric")]
_NUMPY = {
    "multiarray._reconstruct": "NumPy array",
    "numeric._frombuffer": "NumPy array",
    "multiarray.scalar": "NumPy number",
}
_INERT = [f"{package}.{name}" for package, names in _ODD.items() for name in names]
_OTHERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": _default_dictionary,
    "mmcv.utils.config.ConfigDict": _dictionary,
    "mmengine.config.config.ConfigDict": _dictionary,
    "builtins.getattr": _attribute,
    "_codecs.encode": _bytes,
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
}
# Found by writing checkpoints with mmcv 1.4.7, mmengine 0.6.0 and mmengine 0.10.7, and by what DETR and DINO add
# (their options, an ``argparse.Namespace``).
TABLE: Table = {
    **{name: _odd(name) for name in (*_INERT, *_QUANTIZED, *_DTYPES, *STORAGE_NAMES)},
    **{f"numpy.{core}.{name}": _odd(what) for core in ("core", "_core") for name, what in _NUMPY.items()},
    **_TENSORS,
    **_OTHERS,
}
