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
        why: why nothing may come of it.
        cases: patterns (fnmatch) of the cases it concerns.
    """

    id: str
    apply: Callable[[], Block]
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

BENIGN = (
    Benign("threads-1", threads(1), "another order of sums"),
    Benign("threads-2", threads(2), "another order of sums"),
    Benign("threads-4", threads(4), "another order of sums"),
    Benign("onednn-off", around(lambda: torch.backends.mkldnn.flags(enabled=False)), "other kernels"),
    Benign("onednn-deterministic", around(lambda: torch.backends.mkldnn.flags(deterministic=True)), "other kernels"),
    Benign("deterministic", deterministic(), "other kernels"),
    Benign("flush-denormals", flush_denormals(), "only numbers below 1e-38 change"),
    Benign("inference-mode", around(torch.inference_mode), "no_grad's stricter sister"),
    Benign("gradients", called_with("parity.engines.session:Session.tapped", gradients=True), "recorded, not changed"),
    Benign("autocast-off", around(lambda: torch.autocast("cpu", enabled=False)), "switched off"),
    Benign(
        "tf32-allowed",
        around(lambda: torch.backends.cudnn.flags(allow_tf32=True)),
        "concerns CUDA alone, where it is part of the noise",
    ),
    Benign("fast-path-off", around(lambda: rewritten.no_fast_path()), "fused attention is the same attention"),
    Benign("no-garbage-collection", during(gc.disable, lambda _: gc.enable()), "memory is no matter of numbers"),
    Benign("random-seed", during(lambda: torch.manual_seed(12345), lambda _: None), "inference draws nothing"),
    Benign("run-twice", run_twice(), "nothing is left over from a run"),
    Benign("copied", other_model(copy.deepcopy), "a copy is the same detector"),
    Benign("saved", other_model(saved_and_read), "a file is the same detector"),
    Benign("reloaded", other_model(reloaded), "a checkpoint is the same weights"),
    Benign("train-and-back", other_model(trained_and_back), "evaluation mode is evaluation mode"),
    Benign("frozen", on_model(rewritten.frozen), "what needs a gradient is no matter of inference"),
    Benign("channels-last-weights", on_model(rewritten.channels_last_weights), "memory format", ANY_LAYOUT),
    Benign("channels-last-inputs", placed(channels_last), "memory format", ANY_LAYOUT),
    Benign("strided-inputs", placed(spread_out), "memory format", ANY_LAYOUT),
    Benign("unaligned-weights", on_model(rewritten.unaligned), "where weights lie in memory"),
    Benign("not-in-place", on_model(rewritten.not_in_place), "ReLU that does not work in place"),
    Benign("hooks", on_model(rewritten.hooked), "hooks that look and leave alone"),
    Benign("batch-order", on_model(rewritten.batch_reversed), "images do not know of each other"),
    Benign("batch-split", on_model(rewritten.batch_split), "images do not know of each other"),
    Benign("linear-matmul", wrapped(LINEAR, rewritten.linear_matmul), "x @ w.T + b"),
    Benign("linear-rows", wrapped(LINEAR, rewritten.linear_rows), "a product in pieces"),
    Benign("convolution-unfold", wrapped(CONVOLUTION, rewritten.convolution_unfold), "a convolution is a product"),
    Benign("convolution-halves", wrapped(CONVOLUTION, rewritten.convolution_halves), "output channels in two parts"),
    Benign(
        "batch-norm-arithmetic",
        norm("torch.nn.modules.batchnorm:_BatchNorm.forward", rewritten.batch_norm),
        "batch norm in evaluation, step by step",
        R50,
    ),
    Benign(
        "batch-norm-scale",
        norm("torch.nn.modules.batchnorm:_BatchNorm.forward", rewritten.batch_norm_scale),
        "batch norm as one scale and shift",
        R50,
    ),
    Benign("batch-norm-folded", on_model(rewritten.folded), "batch norm folded into the convolution", R50),
    Benign(
        "group-norm",
        norm("torch.nn.modules.normalization:GroupNorm.forward", rewritten.group_norm),
        "group norm, step by step",
    ),
    Benign(
        "layer-norm",
        norm("torch.nn.modules.normalization:LayerNorm.forward", rewritten.layer_norm),
        "layer norm, step by step",
        (*DETR, "ddq_rcnn_*"),
    ),
    Benign(
        "softmax",
        function_of(((torch.Tensor, "softmax"), (functional, "softmax")), rewritten.softmax),
        "exponentials over their sum",
        (*DETR, "ddq_rcnn_*"),
    ),
    Benign("sigmoid", function_of(((torch.Tensor, "sigmoid"),), rewritten.sigmoid), "1 / (1 + exp(-x))"),
    Benign("attention-fused", on_model(rewritten.fused_attention), "fused attention", (*DETR, "ddq_rcnn_*")),
    Benign("key-bias", on_model(rewritten.no_key_bias), "softmax does not see the key's bias", (*DETR, "ddq_rcnn_*")),
    Benign("traced", on_model(rewritten.traced), "part of the backbone as a TorchScript graph", R50),
    Benign("compiled", on_model(rewritten.compiled), "part of the backbone through torch.compile", R50),
    Benign("sorted-results", sorted_results(), "the original leaves the order open", ("ddq_rcnn_*",)),
)
