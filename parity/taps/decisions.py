"""Record every discrete choice a detector makes, and make it choose as it is told.

A decision is a call that picks indices: ``batched_nms``, ``topk``, ``sort``, ``argsort``, scipy's
``linear_sum_assignment``, and the comparison by which mmdet drops what scores too low. While the
block runs, each such call inside a stage is recorded with what it chose from. With ``forced`` the
engine still decides for itself (that is recorded), but goes on with the given choice, so that one tie
does not hide everything behind it.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import torch

from parity.taps.stages import replaced

NMS, TOPK, SORT, ASSIGNMENT, THRESHOLD = "nms", "topk", "sort", "assignment", "threshold"

# Where mmdet, 2 and 3 alike, keeps the scores above a threshold: a score within noise of it changes how many there are.
THRESHOLDING = ("filter_scores_and_topk", "multiclass_nms")

# Taken before anything is patched: the cast for the compiled NMS is no float32 island.
_to_float32 = torch.Tensor.float


@dataclass
class Decision:
    """One choice.

    Attributes:
        kind: ``nms``, ``topk``, ``sort``, ``assignment`` or ``threshold``.
        scores: (N,) or (..., N), what was ranked, in the engine's own dtype; the flat cost matrix of an assignment,
            flat for ``threshold`` too.
        chosen: (K,) or (..., K) int64, the indices picked, best first; ascending for ``threshold``;
            in the order of their columns for ``assignment``.
        boxes: (N, 4), only for ``nms``, in the units that the detector uses there; with the setting ``shifted``
            those of each class moved apart from the others, as mmcv does.
        settings: for ``nms`` all that the suppression was called with, defaults of its own included (see
            ``suppression_settings``); ``columns`` of the cost matrix; ``threshold`` for ``threshold``; ``largest``
            for the others.
        ordered: whether the order of the indices is part of the choice; not so for ``topk(sorted=False)``.
        refused: why a given choice could not be forced, empty where it could.
    """

    kind: str
    scores: torch.Tensor
    chosen: torch.Tensor
    boxes: Optional[torch.Tensor] = None
    settings: Dict[str, float] = field(default_factory=dict)
    ordered: bool = True
    refused: str = ""


def forced_or_own(own: torch.Tensor, forced: Optional[torch.Tensor], size: int) -> Tuple[torch.Tensor, str]:
    """Return the choice to go on with, and why it is not the forced one where that cannot be."""
    if forced is None:
        return own, ""
    if forced.shape[:-1] != own.shape[:-1]:
        return own, f"the frozen choice has shape {tuple(forced.shape)}, here it is {tuple(own.shape)}"
    if forced.numel() and not 0 <= int(forced.min()) <= int(forced.max()) < size:
        return own, f"the frozen choice picks index {int(forced.max())} of only {size}"
    return forced.to(own.device), ""


class DecisionTaps:
    """Records the decisions of every stage as ``stage.kind.count``; see the module text.

    Args:
        current_stage: tells which stage is running; choices made outside of any are left alone.
        forced: name -> the choice to go on with.
    """

    def __init__(
        self, current_stage: Callable[[], Optional[str]], forced: Optional[Mapping[str, torch.Tensor]] = None
    ) -> None:
        self.current_stage = current_stage
        self.forced = forced or {}
        self.decisions: Dict[str, Decision] = {}
        self._counts: Dict[Tuple[str, str], int] = {}
        self._inside = False
        self._patches = ExitStack()

    def __enter__(self) -> "DecisionTaps":
        for owner, attribute, wrap in self._targets():
            self._patches.enter_context(replaced_function(owner, attribute, wrap))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._patches.close()

    def _targets(self) -> List[Tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]]:
        targets: List[Tuple[Any, str, Any]] = [
            (owner, name, wrap)
            for owner in (torch, torch.Tensor)
            for name, wrap in (("topk", self._topk), ("sort", self._sort), ("argsort", self._argsort))
        ]
        targets.append((torch.Tensor, "__gt__", self._greater))
        for package, function, wrap in (
            ("mmcv.ops", "batched_nms", self._nms),
            ("scipy.optimize", "linear_sum_assignment", self._assignment),
        ):
            targets += [(module, name, wrap) for module, name in _holders(package, function)]
        return targets

    def _name(self, kind: str) -> str:
        stage = self.current_stage() or ""
        count = self._counts.get((stage, kind), 0)
        self._counts[stage, kind] = count + 1
        return f"{stage}.{kind}.{count}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside one decision (an NMS sorts, too) nothing else is recorded."""
        outer, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = outer

    def _passes(self, tensor: torch.Tensor) -> bool:
        return self._inside or self.current_stage() is None or not tensor.is_floating_point()

    def _settle(self, kind: str, own: torch.Tensor, **recorded: Any) -> torch.Tensor:
        """Record the engine's own choice and return the one to go on with."""
        name = self._name(kind)
        scores = recorded["scores"]
        choice, refused = forced_or_own(own, self.forced.get(name), scores.shape[-1])
        kept: Dict[str, Any] = {
            key: value.detach().clone() if torch.is_tensor(value) else value for key, value in recorded.items()
        }
        self.decisions[name] = Decision(kind, chosen=own.detach().clone(), refused=refused, **kept)
        return choice

    def _last(self) -> Decision:
        return list(self.decisions.values())[-1]

    def _nms(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def batched_nms(
            boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, nms_cfg: Any, class_agnostic: bool = False
        ) -> Tuple[torch.Tensor, torch.Tensor]:
            # A soft NMS lowers scores instead of choosing: what it gives is compared as a tensor.
            passes = self._passes(scores) or (nms_cfg or {}).get("type", "nms") != "nms"
            with self._alone():
                # The compiled operator knows float32 only; both engines are given the same cast.
                detections, own = original(
                    _to_float32(boxes), _to_float32(scores), _to_float32(idxs), nms_cfg, class_agnostic
                )
            if passes:
                return detections.to(boxes.dtype), own
            kind = SORT if nms_cfg is None else NMS
            settings = {"largest": 1.0} if nms_cfg is None else suppression_settings(nms_cfg, class_agnostic)
            recorded = {} if nms_cfg is None else {"boxes": boxes}
            if nms_cfg is not None and not settings["class_agnostic"] and _differ(idxs):
                # Classes are kept apart by moving their boxes apart; in float32 that rounds, and decides what overlaps.
                recorded["boxes"] = boxes + idxs[:, None].to(boxes.dtype) * (boxes.max() + 1)
                settings["shifted"] = 1.0
            keep = self._settle(kind, own, scores=scores, settings=settings, **recorded)
            # Gathered again, not taken from the operator: its float32 copies would round a float64 run.
            return torch.cat([boxes[keep], scores[keep, None]], -1), keep

        return batched_nms

    def _greater(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def greater(scores: torch.Tensor, other: Any) -> Any:
            if self._passes(scores) or torch.is_tensor(other) or sys._getframe(1).f_code.co_name not in THRESHOLDING:
                return original(scores, other)
            with self._alone():
                mask = original(scores, other).flatten()
                own = mask.nonzero().flatten()
            settings = {"threshold": float(other)}
            choice = self._settle(THRESHOLD, own, scores=scores.flatten(), settings=settings, ordered=False)
            return torch.zeros_like(mask).index_fill_(0, choice, True).view(scores.shape)

        return greater

    def _assignment(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def linear_sum_assignment(cost_matrix: Any, *args: Any, **kwargs: Any) -> Any:
            cost = torch.as_tensor(cost_matrix)
            if self._passes(cost) or cost.numel() == 0 or args or kwargs:
                return original(cost_matrix, *args, **kwargs)
            rows, columns = original(cost_matrix)
            alike = _first_alike(cost)
            # In the order of their columns: where two objects are the same, it tells which of them a pair is about.
            by_column = torch.as_tensor(columns).argsort()
            own = (torch.as_tensor(rows) * cost.shape[1] + alike[torch.as_tensor(columns)])[by_column]
            settings = {"columns": float(cost.shape[1])}
            pairs = self._settle(ASSIGNMENT, own, scores=cost.reshape(-1), settings=settings, ordered=False)
            try:
                return (rows, columns) if pairs is own else _rows_and_columns(pairs, alike, cost.shape[1])
            except (KeyError, IndexError):
                self._last().refused = "the frozen matching has pairs that this cost matrix has no column for"
                return rows, columns

        return linear_sum_assignment

    def _topk(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def topk(
            input: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, **out: Any
        ) -> Any:
            if self._passes(input) or dim not in (-1, input.dim() - 1) or out:
                return original(input, k, dim, largest, sorted, **out)
            with self._alone():
                result = original(input, k, dim, largest, sorted)
            settings = {"largest": float(largest)}
            choice = self._settle(TOPK, result.indices, scores=input, settings=settings, ordered=sorted)
            return type(result)((input.gather(-1, choice), choice))

        return topk

    def _sort(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def sort(input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            dim, descending = _sort_arguments(*args, **kwargs)
            if self._passes(input) or dim not in (-1, input.dim() - 1) or input.dim() == 0:
                return original(input, *args, **kwargs)
            with self._alone():
                result = original(input, *args, **kwargs)
            settings = {"largest": float(descending)}
            choice = self._settle(SORT, result.indices, scores=input, settings=settings)
            return type(result)((input.gather(-1, choice), choice))

        return sort

    def _argsort(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def argsort(input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            dim, descending = _sort_arguments(*args, **kwargs)
            if self._passes(input) or dim not in (-1, input.dim() - 1) or input.dim() == 0:
                return original(input, *args, **kwargs)
            with self._alone():
                own = original(input, *args, **kwargs)
            return self._settle(SORT, own, scores=input, settings={"largest": float(descending)})

        return argsort


def suppression_settings(nms_cfg: Mapping[str, Any], class_agnostic: bool = False) -> Dict[str, float]:
    """Return every setting of one call of mmcv's ``batched_nms`` but its type, which is ``nms`` wherever it decides.

    What the config does not say has the value that mmcv gives it: in the body of ``batched_nms`` (``split_thr``), and
    in the signature of its ``nms``.
    """
    said = {key: value for key, value in nms_cfg.items() if key != "type"}
    if "iou_thr" in said:  # its name before mmcv 1.0, which mmcv still takes
        said["iou_threshold"] = said.pop("iou_thr")
    signature = inspect.signature(sys.modules["mmcv.ops.nms"].nms).parameters
    defaults = {
        name: parameter.default
        for name, parameter in signature.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {
        name: float(value)
        for name, value in {"split_thr": 10000, "class_agnostic": class_agnostic, **defaults, **said}.items()
    }


def _differ(idxs: torch.Tensor) -> bool:
    return bool(idxs.numel()) and bool((idxs != idxs[0]).any())


def _holders(package: str, function: str) -> List[Tuple[Any, str]]:
    """Return (module, name) of everything that holds a function: it is imported by name all over."""
    wanted = getattr(sys.modules.get(package), function, None)
    return [
        (module, name)
        for module in list(sys.modules.values())
        for name, value in list(vars(module).items() if module is not None else ())
        if wanted is not None and value is wanted
    ]


def _first_alike(cost: torch.Tensor) -> torch.Tensor:
    """Return for each column the first one that equals it: copies of a ground truth are one and the same choice.

    >>> _first_alike(torch.tensor([[1.0, 1.0, 2.0], [0.0, 0.0, 5.0]])).tolist()
    [0, 0, 2]
    """
    _, kinds = torch.unique(cost, dim=1, return_inverse=True)
    first = torch.full((int(kinds.max()) + 1 if len(kinds) else 0,), len(kinds), dtype=torch.int64)
    for column, kind in enumerate(kinds.tolist()):
        first[kind] = min(int(first[kind]), column)
    return first[kinds]


def _rows_and_columns(pairs: torch.Tensor, alike: torch.Tensor, columns: int) -> Tuple[Any, Any]:
    """Return pairs the way scipy does: ascending rows, and columns of which equal ones are used in turn."""
    free: Dict[int, List[int]] = {}
    for column, kind in enumerate(alike.tolist()):
        free.setdefault(kind, []).append(column)
    chosen = torch.tensor([free[int(pair) % columns].pop(0) for pair in pairs], dtype=torch.int64)
    by_row = pairs.argsort()
    return (pairs // columns)[by_row].numpy(), chosen[by_row].numpy()


def _sort_arguments(dim: int = -1, descending: bool = False, **_: Any) -> Tuple[int, bool]:
    return dim, descending


@contextmanager
def replaced_function(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Wrap a function of a module or class for the time of the block."""
    if isinstance(owner, type):
        inherited = name not in vars(owner)  # topk is Tensor's base class's
        original = getattr(owner, name)
        setattr(owner, name, wrap(original))
        try:
            yield
        finally:
            delattr(owner, name)
            if not inherited:
                setattr(owner, name, original)
    else:
        with replaced(owner, name, wrap(getattr(owner, name))):
            yield
