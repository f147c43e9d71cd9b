"""Changes that leave the detector the same: none of them may raise an alarm."""

from __future__ import annotations

import copy
import functools
import gc
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parity.engines.session import Session
from parity.mutants import rewritten
from parity.mutants.edits import constant
from parity.mutants.plant import RUNS, Plant, called_with, edited, on_model, result_of, together, wrapped
from parity.taps.decisions import replaced_function
from parity.taps.stages import replaced

Block = AbstractContextManager[Any]
CONVOLUTION = "torch.nn.modules.conv:Conv2d._conv_forward"
LINEAR = "torch.nn.modules.linear:Linear.forward"


@dataclass(frozen=True)
class Benign:
    """One change that has to pass.

    Attributes:
        apply: returns the block inside which the engine is changed.
        changes: what it changes, in plain words.
        why: why nothing may follow.
        cases: patterns (fnmatch) of the cases it concerns.
    """

    id: str
    apply: Callable[[], Block]
    changes: str
    why: str
    cases: tuple[str, ...] = ("*",)

    def concerns(self, case_id: str) -> bool:
        """Return whether it makes a change in a case."""
        return any(fnmatchcase(case_id, pattern) for pattern in self.cases)


def during(enter: Callable[[], Any], leave: Callable[[Any], Any]) -> Plant:
    """Return a setting of the process: ``enter`` makes it and returns what ``leave`` is given to take it back."""

    @contextmanager
    def block() -> Iterator[None]:
        before = enter()
        try:
            yield
        finally:
            leave(before)

    return Plant(block)


def threads(count: int) -> Plant:
    """Return another number of threads."""

    def enter() -> int:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        return before

    return during(enter, torch.set_num_threads)


def around(make: Callable[[], Block]) -> Plant:
    """Return every run of the detector inside a block of torch's own."""

    def within(run: Any) -> Any:
        @functools.wraps(run)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with make():
                return run(*args, **kwargs)

        return inside

    return together(*(wrapped(f"parity.engines.session:Session.{name}", within) for name in RUNS))


def deterministic() -> Plant:
    """Return torch's deterministic algorithms."""

    def enter() -> bool:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        return before

    return during(enter, torch.use_deterministic_algorithms)


def other_model(make: Callable[[Any], Any]) -> Plant:
    """Return a copy of the detector in its place."""

    def within(run: Any) -> Any:
        @functools.wraps(run)
        def copied(session: Session, *args: Any, **kwargs: Any) -> Any:
            with replaced(session, "model", make(session.model)):
                return run(session, *args, **kwargs)

        return copied

    return together(*(wrapped(f"parity.engines.session:Session.{name}", within) for name in RUNS))


def saved_and_read(model: Any) -> Any:
    """Return a detector that went through a file, code and all."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # what was pickled on the line above, and nothing else


def reloaded(model: Any) -> Any:
    """Return a copy whose weights went through a checkpoint file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(model)
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    return fresh


def trained_and_back(model: Any) -> Any:
    """Return the detector after a change to training mode and back."""
    return model.train().eval()


def function_of(names: tuple[tuple[Any, str], ...], replacement: Callable[[Any], Any]) -> Plant:
    """Return functions of torch written in another way; ``replacement(original)``."""

    @contextmanager
    def block() -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name in names:
                stack.enter_context(replaced_function(owner, name, replacement))
            yield

    return Plant(block)


def norm(module: str, forward: Callable[[Any, Tensor], Tensor]) -> Plant:
    """Return a kind of norm layer with another forward."""
    return wrapped(module, lambda original: functools.wraps(original)(forward))


def run_twice() -> Plant:
    """Return every run made twice, the second of which counts: nothing may be left over from the first."""

    def twice(run: Any) -> Any:
        @functools.wraps(run)
        def again(*args: Any, **kwargs: Any) -> Any:
            run(*args, **kwargs)
            return run(*args, **kwargs)

        return again

    return together(*(wrapped(f"parity.engines.session:Session.{name}", twice) for name in RUNS))


def flush_denormals() -> Plant:
    """Return numbers too small for the format's full precision taken for 0."""
    return during(lambda: torch.set_flush_denormal(True), lambda _: torch.set_flush_denormal(False))


def channels_last(tensor: Tensor) -> Tensor:
    """Return a stage's input laid out channels last, where it is a batch of maps."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def spread_out(tensor: Tensor) -> Tensor:
    """Return a stage's input as every other element of a buffer twice as large."""
    return torch.stack([tensor, tensor], -1)[..., 0] if tensor.dim() else tensor


def placed(change: Callable[[Tensor], Tensor]) -> Plant:
    """Return stages whose inputs are laid out otherwise."""
    return result_of("parity.engines.session:Session.placed", change)


def sorted_results() -> Plant:
    """Return detections of DDQ R-CNN in the order of their scores: the original leaves the order open."""
    return edited("parity.ports.roi_head:DDQRoIHead._best_pairs", constant(False, True))


R50 = ("*_r50_*",)
DETR = ("ddq_detr_*",)
# mmcv's RoIAlign reads a map as if it were contiguous, whatever its layout: in DDQ R-CNN it is no benign change,
# but the mutants roi-channels-last and roi-strided.
ANY_LAYOUT = ("ddq_detr_*", "ddq_fcn_*")

# Why nothing may follow, where several changes share the reason.
SUMS = "sums are made in another order, which float32 rounds within the noise floor"
KERNELS = "other kernels of the same functions, which float32 rounds within the noise floor"
GRADIENTS = "whether gradients are recorded changes no value of a forward pass"
COPY = "a copy holds the same code and the same weights"
MEMORY = "where values lie in memory is no part of a function"
IMAGES = "in evaluation mode no image of a batch depends on another"
SAME = "mathematically the same function, which float32 rounds within the noise floor"

BENIGN = (
    Benign("threads-1", threads(1), "one thread", SUMS),
    Benign("threads-2", threads(2), "two threads", SUMS),
    Benign("threads-4", threads(4), "four threads", SUMS),
    Benign("onednn-off", around(lambda: torch.backends.mkldnn.flags(enabled=False)), "oneDNN switched off", KERNELS),
    Benign(
        "onednn-deterministic",
        around(lambda: torch.backends.mkldnn.flags(enabled=True, deterministic=True)),
        "oneDNN's deterministic kernels",
        KERNELS,
    ),
    Benign("deterministic", deterministic(), "torch's deterministic algorithms", KERNELS),
    Benign(
        "flush-denormals",
        flush_denormals(),
        "numbers below 1e-38 taken for 0",
        "they are far below the rounding errors of what they are added to",
    ),
    Benign("inference-mode", around(torch.inference_mode), "inference mode in place of no_grad", GRADIENTS),
    Benign(
        "gradients",
        called_with("parity.engines.session:Session.tapped", gradients=True),
        "gradients enabled",
        GRADIENTS,
    ),
    Benign(
        "autocast-off",
        around(lambda: torch.autocast("cpu", enabled=False)),
        "automatic mixed precision switched off by name",
        "it is off anyway",
    ),
    Benign(
        "tf32-allowed",
        around(lambda: torch.backends.cudnn.flags(enabled=True, allow_tf32=True)),
        "TF32 allowed in convolutions",
        "only kernels of CUDA read it; on a CUDA device it is no benign change",
    ),
    Benign(
        "fast-path-off",
        around(lambda: rewritten.no_fast_path()),
        "attention without torch's fused fast path",
        "both compute the same function",
    ),
    Benign(
        "no-garbage-collection",
        during(gc.disable, lambda _: gc.enable()),
        "Python's garbage collection switched off",
        "it frees memory and computes nothing",
    ),
    Benign(
        "random-seed",
        during(lambda: torch.manual_seed(12345), lambda _: None),
        "another seed of the random numbers",
        "inference draws none",
    ),
    Benign("run-twice", run_twice(), "every run made twice, the second counts", "a run leaves no state behind"),
    Benign("copied", other_model(copy.deepcopy), "a deep copy of the model", COPY),
    Benign("saved", other_model(saved_and_read), "the model saved to a file and read again", COPY),
    Benign("reloaded", other_model(reloaded), "the weights saved to a checkpoint and loaded into a copy", COPY),
    Benign(
        "train-and-back",
        other_model(trained_and_back),
        "the model set to training mode and back to evaluation",
        "evaluation mode is a switch and keeps nothing of the training mode before it",
    ),
    Benign("frozen", on_model(rewritten.frozen), "parameters that need no gradient", GRADIENTS),
    Benign(
        "channels-last-weights",
        on_model(rewritten.channels_last_weights),
        "weights laid out channels last",
        MEMORY,
        ANY_LAYOUT,
    ),
    Benign("channels-last-inputs", placed(channels_last), "stage inputs laid out channels last", MEMORY, ANY_LAYOUT),
    Benign("strided-inputs", placed(spread_out), "stage inputs as every other element of a buffer", MEMORY, ANY_LAYOUT),
    Benign(
        "unaligned-weights", on_model(rewritten.unaligned), "every parameter one element off its usual address", MEMORY
    ),
    Benign(
        "not-in-place",
        on_model(rewritten.not_in_place),
        "activations that leave their input as it is",
        "nothing reads the input of an in-place activation afterwards",
    ),
    Benign(
        "hooks",
        on_model(rewritten.hooked),
        "a forward hook on every module",
        "the hooks return nothing, so they replace nothing",
    ),
    Benign("batch-order", on_model(rewritten.batch_reversed), "the images of a batch in opposite order", IMAGES),
    Benign("batch-split", on_model(rewritten.batch_split), "the images of a batch one at a time", IMAGES),
    Benign("linear-matmul", wrapped(LINEAR, rewritten.linear_matmul), "linear layers as x @ w.T + b", SAME),
    Benign("linear-rows", wrapped(LINEAR, rewritten.linear_rows), "linear layers on their rows in three parts", SAME),
    Benign(
        "convolution-unfold",
        wrapped(CONVOLUTION, rewritten.convolution_unfold),
        "convolutions as products with unfolded patches",
        SAME,
    ),
    Benign(
        "convolution-halves",
        wrapped(CONVOLUTION, rewritten.convolution_halves),
        "convolutions with their output channels in two parts",
        SAME,
    ),
    Benign(
        "batch-norm-arithmetic",
        norm("torch.nn.modules.batchnorm:_BatchNorm.forward", rewritten.batch_norm),
        "batch norm step by step",
        SAME,
        R50,
    ),
    Benign(
        "batch-norm-scale",
        norm("torch.nn.modules.batchnorm:_BatchNorm.forward", rewritten.batch_norm_scale),
        "batch norm as one scale and one shift",
        SAME,
        R50,
    ),
    Benign(
        "batch-norm-folded", on_model(rewritten.folded), "batch norm folded into the convolution before it", SAME, R50
    ),
    Benign(
        "group-norm",
        norm("torch.nn.modules.normalization:GroupNorm.forward", rewritten.group_norm),
        "group norm step by step",
        SAME,
    ),
    Benign(
        "layer-norm",
        norm("torch.nn.modules.normalization:LayerNorm.forward", rewritten.layer_norm),
        "layer norm step by step",
        SAME,
        (*DETR, "ddq_rcnn_*"),
    ),
    Benign(
        "softmax",
        function_of(((torch.Tensor, "softmax"), (functional, "softmax")), rewritten.softmax),
        "softmax as exponentials over their sum",
        SAME,
        (*DETR, "ddq_rcnn_*"),
    ),
    Benign(
        "sigmoid",
        function_of(((torch.Tensor, "sigmoid"),), rewritten.sigmoid),
        "the sigmoid as 1 / (1 + exp(-x))",
        SAME,
    ),
    Benign(
        "attention-fused",
        on_model(rewritten.fused_attention),
        "attention without its weights being returned, which torch fuses",
        SAME,
        (*DETR, "ddq_rcnn_*"),
    ),
    Benign(
        "key-bias",
        on_model(rewritten.no_key_bias),
        "attention without the bias of its keys",
        "it adds the same number to all scores of a query, and softmax subtracts it again",
        (*DETR, "ddq_rcnn_*"),
    ),
    Benign("traced", on_model(rewritten.traced), "one layer of the backbone as a TorchScript graph", SAME, R50),
    Benign("compiled", on_model(rewritten.compiled), "one layer of the backbone through torch.compile", SAME, R50),
    Benign(
        "sorted-results",
        sorted_results(),
        "detections in the order of their scores",
        "the original leaves the order open",
        ("ddq_rcnn_*",),
    ),
)
