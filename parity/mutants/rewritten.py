"""Parts of a network written in another way that is mathematically the same."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from parity.taps.stages import replaced

Model = Any


@contextmanager
def no_fast_path() -> Iterator[None]:
    """Run attention without torch's fused fast path."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def linear_matmul(_original: Any) -> Callable[[Any, Tensor], Tensor]:
    """Return a linear layer as a product and a sum."""

    def forward(self: Any, input: Tensor) -> Tensor:
        product = torch.matmul(input, self.weight.t())
        return product if self.bias is None else product + self.bias

    return forward


def linear_rows(original: Any) -> Callable[[Any, Tensor], Tensor]:
    """Return a linear layer that takes its rows in three parts."""

    def forward(self: Any, input: Tensor) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        parts = [original(self, part) for part in rows.tensor_split(3) if len(part)]
        return torch.cat(parts).view(*input.shape[:-1], -1) if parts else original(self, input)

    return forward


def convolution_unfold(_original: Any) -> Callable[..., Tensor]:
    """Return a convolution as a product with unfolded patches; one with several groups as it is."""

    def forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.groups != 1 or self.padding_mode != "zeros":
            return functional.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        patches = functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)
        sums = weight.flatten(1) @ patches
        if bias is not None:
            sums = sums + bias[:, None]
        size = [
            (length + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for length, pad, dilation, kernel, stride in zip(
                input.shape[-2:], self.padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        ]
        return sums.view(len(input), -1, *size)

    return forward


def convolution_halves(original: Any) -> Callable[..., Tensor]:
    """Return a convolution that makes its output channels in two parts; one with several groups as it is."""

    def forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.groups != 1 or len(weight) < 2:
            return original(self, input, weight, bias)  # type: ignore[no-any-return]
        biases = (None, None) if bias is None else bias.tensor_split(2)
        parts = zip(weight.tensor_split(2), biases, strict=True)
        return torch.cat([original(self, input, *part) for part in parts], dim=1)

    return forward


def _by_channel(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def batch_norm(self: Any, input: Tensor) -> Tensor:
    """Normalise with the running statistics, step by step."""
    deviation = (self.running_var + self.eps).sqrt()
    normal = (input - _by_channel(self.running_mean)) / _by_channel(deviation)
    return normal * _by_channel(self.weight) + _by_channel(self.bias)


def batch_norm_scale(self: Any, input: Tensor) -> Tensor:
    """Normalise with the running statistics by one scale and one shift."""
    scale = self.weight * (self.running_var + self.eps).rsqrt()
    return input * _by_channel(scale) + _by_channel(self.bias - self.running_mean * scale)


def group_norm(self: Any, input: Tensor) -> Tensor:
    """Normalise groups of channels, step by step."""
    groups = input.reshape(len(input), self.num_groups, -1)
    variance, mean = torch.var_mean(groups, dim=-1, unbiased=False, keepdim=True)
    normal = ((groups - mean) / (variance + self.eps).sqrt()).view(input.shape)
    scaled: Tensor = normal * _by_channel(self.weight) + _by_channel(self.bias)
    return scaled


def layer_norm(self: Any, input: Tensor) -> Tensor:
    """Normalise the last axis, step by step."""
    variance, mean = torch.var_mean(input, dim=-1, unbiased=False, keepdim=True)
    scaled: Tensor = (input - mean) / (variance + self.eps).sqrt() * self.weight + self.bias
    return scaled


def softmax(original: Any) -> Callable[..., Tensor]:
    """Return softmax as exponentials over their sum, as long as it is asked for an axis alone."""

    @functools.wraps(original)
    def explicit(input: Tensor, dim: int = -1, *args: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
        if dtype is not None:
            return original(input, dim, *args, dtype=dtype, **kwargs)  # type: ignore[no-any-return]
        powers = (input - input.amax(dim, keepdim=True)).exp()
        return powers / powers.sum(dim, keepdim=True)

    return explicit


def sigmoid(_original: Any) -> Callable[[Tensor], Tensor]:
    """Return the sigmoid by its formula."""
    return lambda input: 1 / (1 + (-input).exp())


@contextmanager
def _set(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes of modules, submodules included, for the time of the block."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def not_in_place(model: Model) -> Any:
    """Run with activations that leave their input alone."""
    return _set([(module, "inplace", False) for module in model.modules() if getattr(module, "inplace", False)])


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """Run with parameters that need no gradient."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def channels_last_weights(model: Model) -> Iterator[None]:
    """Run with the convolutions' weights laid out channels last."""
    model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)


@contextmanager
def unaligned(model: Model) -> Iterator[None]:
    """Run with every parameter one element off its usual place in memory."""
    kept = [(parameter, parameter.data) for parameter in model.parameters()]
    for parameter, data in kept:
        buffer = torch.empty(data.numel() + 1, dtype=data.dtype)
        buffer[1:] = data.reshape(-1)
        parameter.data = buffer[1:].view(data.shape)
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


@contextmanager
def hooked(model: Model) -> Iterator[None]:
    """Run with a hook on every module that returns nothing."""
    hooks = [module.register_forward_hook(lambda *_: None) for module in model.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _per_image(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return feature maps, or lists and dictionaries of them, each changed along its images."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _per_image(inner, change) for key, inner in value.items()}
    return None if value is None else type(value)(_per_image(inner, change) for inner in value)


def _networks(model: Model) -> list[Any]:
    """Return the parts whose one argument and result are maps with a first axis of images."""
    heads = [
        getattr(model, name) for name in ("rpn_head", "bbox_head") if hasattr(getattr(model, name, None), "scales")
    ]
    return [model.backbone, model.neck, *heads]


@contextmanager
def batch_reversed(model: Model) -> Iterator[None]:
    """Run backbone, neck and dense head on the images in opposite order."""

    def reversed_images(forward: Any) -> Any:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            flipped = (_per_image(args, lambda maps: maps.flip(0)), _per_image(kwargs, lambda maps: maps.flip(0)))
            return _per_image(forward(*flipped[0], **flipped[1]), lambda maps: maps.flip(0))

        return run

    with ExitStack() as stack:
        for network in _networks(model):
            stack.enter_context(replaced(network, "forward", reversed_images(network.forward)))
        yield


@contextmanager
def batch_split(model: Model) -> Iterator[None]:
    """Run backbone, neck and dense head on one image at a time."""

    def one_by_one(forward: Any) -> Any:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            results = []
            for image in range(_images((args, kwargs))):
                part = functools.partial(torch.narrow, dim=0, start=image, length=1)
                results.append(forward(*_per_image(args, part), **_per_image(kwargs, part)))
            return _joined(results)

        return run

    with ExitStack() as stack:
        for network in _networks(model):
            stack.enter_context(replaced(network, "forward", one_by_one(network.forward)))
        yield


def _images(value: Any) -> int:
    if isinstance(value, Tensor):
        return len(value)
    inner = value.values() if isinstance(value, dict) else value
    return max((_images(element) for element in inner), default=0)


def _joined(results: list[Any]) -> Any:
    """Return what several images gave as one."""
    first = results[0]
    if isinstance(first, Tensor):
        return torch.cat(results)
    if isinstance(first, dict):
        return {key: _joined([result[key] for result in results]) for key in first}
    return None if first is None else type(first)(_joined(list(parts)) for parts in zip(*results, strict=True))


@contextmanager
def folded(model: Model) -> Iterator[None]:
    """Run with every batch norm of the backbone's blocks folded into the convolution before it."""
    changes: list[tuple[Any, str, Any]] = []
    for block in model.backbone.modules():
        for number in (1, 2, 3):
            convolution, norm = getattr(block, f"conv{number}", None), getattr(block, f"bn{number}", None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                changes.append((block, f"conv{number}", fuse_conv_bn_eval(convolution, norm)))
                changes.append((block, f"bn{number}", nn.Identity()))
    with _set(changes):
        yield
    changes.clear()
    gc.collect()  # the copies, 200 MB of them in float64, hang in cycles: a few dozen runs would fill the memory


@contextmanager
def fused_attention(model: Model) -> Iterator[None]:
    """Run multi-head attention without its weights being asked for, which lets torch fuse it."""
    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    hooks = [
        module.register_forward_pre_hook(
            lambda _m, args, kwargs: (args, {**kwargs, "need_weights": False}), with_kwargs=True
        )
        for module in attentions
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def no_key_bias(model: Model) -> Iterator[None]:
    """Run multi-head attention without the bias of its keys: it adds the same to all scores of a query."""
    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    kept = [(module, module.in_proj_bias.detach().clone()) for module in attentions]
    with torch.no_grad():
        for module in attentions:
            module.in_proj_bias.view(3, -1)[1] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            for module, bias in kept:
                module.in_proj_bias.copy_(bias)


@contextmanager
def traced(model: Model) -> Iterator[None]:
    """Run one layer of the backbone as a TorchScript graph, traced on what it is given."""
    layer = model.backbone.layer4[0]
    forward = layer.forward

    def run(x: Tensor) -> Any:
        layer.__dict__.pop("forward")
        try:
            return torch.jit.trace(layer, x.detach(), check_trace=False)(x)  # type: ignore[no-untyped-call]
        finally:
            layer.forward = run

    layer.forward = run
    try:
        yield
    finally:
        layer.__dict__.pop("forward", None)
        assert layer.forward == forward


def compiled(model: Model) -> Any:
    """Run one layer of the backbone through ``torch.compile``: its graph, on torch's own kernels."""
    layer = model.backbone.layer4[0]
    return replaced(layer, "forward", torch.compile(layer.forward, backend="aot_eager"))
