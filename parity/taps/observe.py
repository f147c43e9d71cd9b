"""Watch a running detector where stages may begin and end: what goes in, what comes out, what is known already.

Runs in both interpreters (Python 3.8, torch 1.9), as the tensors do not leave theirs: a call is described by plain
trees. A tensor is ``{"t": number, "shape": [...]}``; a number that came up before is the same tensor again.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import ExitStack
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import torch

from parity.taps import rois
from parity.taps.stages import replaced, resolve

Tree = Dict[str, Any]

# What a result object of one image may hold.
RESULT_FIELDS = ("bboxes", "scores", "labels", "features")


class Observer:
    """Describes the calls of the methods at ``paths`` while the block runs, in the order in which they end."""

    def __init__(self, model: Any, paths: Sequence[str], image: torch.Tensor) -> None:
        self.model = model
        self.calls: List[Dict[str, Any]] = []
        self._paths = paths
        self._kept: List[torch.Tensor] = []  # keeps addresses from being used again
        self._numbers: Dict[Any, int] = {}
        self._per_image: List[Tuple[List[torch.Tensor], Tree]] = []
        self._wrappers = ExitStack()
        self._number(image)  # 0

    def __enter__(self) -> Observer:
        for path in self._paths:
            try:
                owner, attribute = resolve(self.model, path)
                method = getattr(owner, attribute)
            except (AttributeError, IndexError, TypeError, ImportError):
                continue  # this detector has no such method
            self._wrappers.enter_context(replaced(owner, attribute, self._observed(method, path)))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._wrappers.close()

    def _observed(self, method: Callable[..., Any], path: str) -> Callable[..., Any]:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def observed(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs).arguments
            call: Dict[str, Any] = {"path": path, "arguments": self._arguments(signature, bound)}
            result = method(*args, **kwargs)
            call["result"] = self._tree(result, new=True)
            self.calls.append(call)
            return result

        return observed

    def _arguments(self, signature: inspect.Signature, bound: Mapping[str, Any]) -> Dict[str, Tree]:
        found: Dict[str, Tree] = {}
        for name, value in bound.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                found.update({inner: self._tree(given) for inner, given in value.items()})
            else:
                found[name] = self._tree(value)
        return found

    def _number(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor)
        return self._numbers.setdefault(_identity(tensor), len(self._numbers))

    def _tree(self, value: Any, *, new: bool = False) -> Tree:
        """Describe a value; ``new`` says that it is a result, whose tensors are known from now on."""
        if torch.is_tensor(value):
            return self._tensor(value, new)
        if value is None or isinstance(value, (bool, int, float, str)):
            return {"constant": value}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            setting = self._setting(value)
            return setting or {"dict": {key: self._tree(inner, new=new) for key, inner in value.items()}}
        if isinstance(value, (list, tuple)):
            return self._sequence(value, new)
        return self._setting(value) or {"other": type(value).__name__}

    def _tensor(self, tensor: torch.Tensor, new: bool) -> Tree:
        if new or _identity(tensor) in self._numbers:
            return {"t": self._number(tensor), "shape": list(tensor.shape)}
        return self._derived(tensor) or {"unknown": list(tensor.shape)}

    def _sequence(self, value: Sequence[Any], new: bool) -> Tree:
        if value and all(isinstance(element, dict) and "img_shape" in element for element in value):
            return {"metas": len(value)}
        if value and all(hasattr(element, "metainfo") for element in value):
            if all(hasattr(element, "bboxes") for element in value):
                return self._instances(value, new)
            return {"samples": len(value)}
        if value and not new and all(torch.is_tensor(element) for element in value):
            derived = self._derived_per_image(value)
            if derived:
                return derived
        elements = [self._tree(element, new=new) for element in value]
        if new and value and all(torch.is_tensor(e) and e.dim() == 2 and e.shape[1] in (4, 5) for e in value):
            self._per_image.append((list(value), {"seq": elements}))
        return {"seq": elements}

    def _instances(self, value: Sequence[Any], new: bool) -> Tree:
        fields = [name for name in RESULT_FIELDS if all(torch.is_tensor(getattr(v, name, None)) for v in value)]
        found = {name: [self._tree(getattr(element, name), new=new) for element in value] for name in fields}
        if new:
            boxes = [element.bboxes for element in value]
            self._per_image.append((boxes, {"seq": found["bboxes"]}))
        return {"instances": found}

    def _derived(self, tensor: torch.Tensor) -> Tree:
        """Describe a tensor that is made of known boxes: the regions of interest of all images, one below the other."""
        for boxes, tree in reversed(self._per_image):
            made = rois.proposals_to_rois(boxes)
            if made.shape == tensor.shape and bool((made == tensor).all()):
                number = self._number(tensor)
                return {"derived": "parity.taps.rois:proposals_to_rois", "source": tree, "t": number}
        return {}

    def _derived_per_image(self, value: Sequence[torch.Tensor]) -> Tree:
        """Describe a list that is a known tensor cut into the rows of each image's boxes."""
        for boxes, tree in reversed(self._per_image):
            if [len(element) for element in value] != [len(element) for element in boxes]:
                continue
            whole = torch.cat(list(value))
            for number, known in enumerate(self._known()):
                if known.shape == whole.shape and known.dtype == whole.dtype and bool((known == whole).all()):
                    joined = {"t": number, "shape": list(known.shape)}
                    return {"derived": "parity.taps.rois:per_image", "source": {"seq": [joined, tree]}}
        return {}

    def _known(self) -> List[torch.Tensor]:
        by_number = {self._numbers[_identity(tensor)]: tensor for tensor in self._kept}
        return [by_number[number] for number in sorted(by_number)]

    def _setting(self, value: Any) -> Tree:
        """Describe a value that is an attribute of a module: a part of the config that the caller hands on."""
        for name, module in self.model.named_modules():
            for attribute in ("test_cfg",):
                if getattr(module, attribute, None) is value:
                    return {"attribute": f"{name}.{attribute}".lstrip(".")}
        return {}


def _identity(tensor: torch.Tensor) -> Any:
    if not tensor.numel():
        return id(tensor)
    return (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
