"""The words a case is declared in. Cases are data: everything here is a frozen dataclass."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple, Union

from parity.cases.ap_limits import ApLimits as ApLimits
from parity.cases.other_settings import OtherSetting
from parity.cases.patterns import Pattern, names
from parity.errors import ParityError
from parity.weights.rules import Rule

PREPROCESS, PREDICT = "preprocess", "predict"
ISOLATED, CASCADE = "isolated", "cascade"
MODES = (ISOLATED, CASCADE)
LOSS, GRADIENTS, OPTIMIZER_STEP, TRAJECTORY = "loss", "gradients", "optimizer_step", "trajectory"
SCHEDULE, INITIALISATION, TRAIN_PIPELINE = "schedule", "initialisation", "train_pipeline"
TRAIN_IMAGES = "train_images"  # the training pipeline again, on images written in every way
SETTINGS = "settings"

MOST_RANKS = 64  # processes of one record: every one is started, whoever wrote the record

# What the preprocessing tells the detector about each image, beside the pixels.
METAS = ("img_shape", "ori_shape", "scale_factor", "batch_input_shape")


@dataclass(frozen=True)
class Call:
    """One method of the running detector at which a stage begins or ends.

    Attributes:
        path: where the method is, from the model: ``bbox_head.predict_by_feat``. A path that ends
            at a module means its ``forward``.
            One that has a colon is a function of a module: ``package.module:function``.
        reads: argument name -> pattern.
        writes: the pattern of its result; a name that begins with ``_`` is for later calls of the stage
            only, and is not compared.
        when: arguments that have to equal the ``Constant`` declared for them: two stages may share a path.
        of_arguments: ``writes`` is the pattern of its arguments instead, as a dictionary by name.
        each_image: it is called once for each image, in order.
    """

    path: str
    reads: Mapping[str, Pattern]
    writes: Pattern
    when: Tuple[str, ...] = ()
    of_arguments: bool = False
    each_image: bool = False


@dataclass(frozen=True)
class Slice:
    """Every ``step``-th element along ``axis``: enough of an input where the stage treats the
    elements one by one, so that a record need not hold all of them."""

    axis: int
    step: int


@dataclass(frozen=True)
class Stage:
    """A named boundary inside a detector.

    Attributes:
        calls: the calls it consists of, in order; what a later call reads may come from an earlier one.
        reads_state, writes_state: values the detector carries from stage to stage outside of arguments.
        slices: input name -> how much of it the isolated replay is given.
        begins_after: the stage at whose end this one begins, where no call of its own marks that; what is
            decided from there on is its.
        replayable: whether its calls can be made by themselves; if not, its noise is that of the whole run.
    """

    name: str
    calls: Tuple[Call, ...]
    reads_state: Tuple[str, ...] = ()
    writes_state: Tuple[str, ...] = ()
    slices: Mapping[str, Slice] = field(default_factory=dict)
    begins_after: str = ""
    replayable: bool = True

    def inputs(self) -> Tuple[str, ...]:
        """Return the names that the stage needs from stages before it; ``name[*]`` for one an image."""
        own: Dict[str, None] = {}
        needed: Dict[str, None] = dict.fromkeys(self.reads_state)
        for call in self.calls:
            for pattern in call.reads.values():
                needed.update(dict.fromkeys(n for n in names(pattern) if n not in own))
            own.update(dict.fromkeys(names(call.writes)))
        return tuple(needed)


@dataclass(frozen=True)
class Meaning:
    """What a tensor is: shown in manifests and reports. ``unit`` is the field's word for its numbers."""

    text: str
    unit: str


@dataclass(frozen=True)
class Fill:
    """How the synthetic weights fill the parameters whose name matches ``pattern`` (fnmatch).

    A value is ``centre + spread * u`` with ``u`` uniform in [-1, 1); with ``per_fan_in`` the spread
    is that of a layer whose outputs keep the variance of its inputs, times ``spread``. Several
    centres are taken in turn along the last axis: one a box coordinate, say.
    """

    pattern: str
    centre: Union[float, Tuple[float, ...]] = 0.0
    spread: float = 1.0
    per_fan_in: bool = False


@dataclass(frozen=True)
class Picture:
    """One drawn image, said in full.

    Attributes:
        size: (height, width) in pixels.
        boxes: what is painted, in order, pixels xyxy; in a training batch it is the ground truth.
        labels: the class of each box, which is its colour as well.
        ground: seeds the coarse pattern behind them; 0 for one grey all over.
    """

    size: Tuple[int, int]
    boxes: Tuple[Tuple[float, float, float, float], ...] = ()
    labels: Tuple[int, ...] = ()
    ground: int = 0


@dataclass(frozen=True)
class Batch:
    """What a record is made of: drawn images of the given sizes, or files shown through the test pipeline.

    Attributes:
        seed: seeds the weights and the drawn images.
        sizes: (height, width) in pixels of every drawn image; they are not resized.
        files: names of photographs (see ``records.images``), resized into ``scale``.
        scale: (long side, short side) in pixels that ``files`` are resized into, ratio kept.
        fills: rules for the weights that go before those of the case: a crowd of good candidates, say.
        pictures: drawn images that are said in full, instead of ``sizes``; they are not resized.
        modes: in which its record is compared. Without ``isolated`` no tensor is stored whole for a stage to be fed:
            large images make a small record.
        stages: which stages its record is of, all if empty; the detector is not run where none of them needs it.
    """

    seed: int
    sizes: Tuple[Tuple[int, int], ...] = ()
    files: Tuple[str, ...] = ()
    scale: Tuple[int, int] = (0, 0)
    fills: Tuple[Fill, ...] = ()
    pictures: Tuple[Picture, ...] = ()
    modes: Tuple[str, ...] = MODES
    stages: Tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingBatch(Batch):
    """What a training record is made of: a batch with drawn ground truth.

    Attributes:
        objects: how many boxes each image has; an image may have none. ``pictures`` say it themselves.
        steps: optimiser steps. One is compared stage by stage; more are a trajectory, on ``per_step`` images each.
        per_step: how many images a step takes, the next ones each time; 0 for all.
        ranks: processes that take the step together; image ``i`` is trained on by process ``i % ranks``.
    """

    objects: Tuple[int, ...] = ()
    steps: int = 1
    per_step: int = 0
    ranks: int = 1


@dataclass(frozen=True)
class Seen:
    """What a deviation is asked about: one tensor of a stage in both engines, and all that stands around it.

    Attributes:
        name: the tensor, as the record has it; empty where a deviation is of a whole stage.
        actual: the new engine's; ``None`` where it gave none.
        expected: what the record keeps of the legacy engine's: all of it, or a digest.
        shape, largest: shape and greatest magnitude of the legacy engine's whole tensor.
        run: everything that the new engine gave (``engines.base.Run``).
        truth: everything that the record holds, by key (``records.layout.StoredTensors``).
    """

    stage: str
    name: str = ""
    actual: Any = None
    expected: Any = None
    shape: Tuple[int, ...] = ()
    largest: float = 0.0
    run: Any = None
    truth: Any = None


@dataclass(frozen=True, init=False)
class Deviation:
    """A difference between the engines that is known, real and harmless, with its reason and a link.

    The kinds that there are stand in ``cases.deviations``; a case file may define its own. One whose difference has
    to show (``concerns``) where the engines agree without it is stale and fails the stage.

    Attributes:
        tensor: the tensor that differs, or the stage if it is of a whole one.
    """

    kind: ClassVar[str] = ""
    tensor: str
    reason: str
    link: str

    def __new__(cls, *args: Any, **fields: Any) -> Deviation:
        """Return an object of the class that ``kind`` names: how case files said it before there were classes."""
        kind = str(fields.get("kind", args[1] if len(args) > 1 else ""))
        made: Deviation = object.__new__(_deviation_class(kind) if cls is Deviation else cls)
        return made

    def __init__(self, tensor: str, kind: str = "", reason: str = "", link: str = "") -> None:
        if kind not in ("", self.kind):
            raise ParityError(f"{type(self).__name__} of {tensor}: it is of kind {self.kind}, not {kind}")
        if not (reason and link):
            raise ParityError(f"{type(self).__name__} of {tensor}: a known deviation has a reason and a link")
        for name, value in {"tensor": tensor, "reason": reason, "link": link}.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return f"{self.reason} ({self.link})"

    def matches(self, stage: str, name: str) -> bool:
        """Return whether it is about this tensor; within a trajectory that is ``step[0].encoder.mask``."""
        return name.split(".")[-1] == self.tensor

    def concerns(self, seen: Seen) -> bool:
        """Return whether the difference has to show, by what the legacy engine alone gave."""
        raise NotImplementedError

    def explains(self, seen: Seen) -> bool:
        """Return whether what differs is this difference."""
        raise NotImplementedError

    def corrected(self, seen: Seen) -> Any:
        """Return what the new engine would have given without the difference; that is compared in its place."""
        return seen.expected

    def takes_away(self, value: Any) -> bool:
        """Return whether the new engine's stages are called with ``None`` for this value of the tensor."""
        return False


def _deviation_class(kind: str) -> Any:
    from parity.cases.deviations import KINDS

    if kind not in KINDS:
        raise ParityError(f"known deviation of kind {kind!r}: there is no such kind; there are {', '.join(KINDS)}")
    return KINDS[kind]


@dataclass(frozen=True)
class Limit:
    """One top-k, threshold or upper bound of a detector, and where it shows.

    Attributes:
        name: what it limits.
        kind: what binds it (see ``parity.limits.bound``):
            ``topk``: a choice of so many of more;
            ``first``: so many of what a choice gives go on, and it gives more;
            ``per_object``: a matching with so many rows for each object, where there are more;
            ``overlap``: an IoU on either side, near it;
            ``threshold``: a score on either side, near it;
            ``unfiltered``: no score is too low: one below the usual thresholds is chosen;
            ``setting``: nothing does, it chooses among nothing.
        value: the number itself.
        decisions: pattern (fnmatch) of the decisions that it shows in.
        keys: engine -> the key of its config that says it; an engine that is not named has it in its code.
        said: what these keys hold, where that is not ``value``.
        training: whether it is a limit of training alone.
        reason: why no record binds it; empty where one has to.
    """

    name: str
    kind: str
    value: float
    decisions: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    said: Optional[float] = None
    training: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Case:
    """One detector to prove.

    Attributes:
        configs: engine name -> config, relative to the legacy checkout or to mmdet's own configs.
        reported_ap: COCO val2017 box AP that the originals report; 0 where none is known.
        tensors: name without index -> meaning.
        cliffs: decision name prefix -> why a change of it below noise moves outputs by O(1).
        legacy_stages: the stages as the legacy engine has them, where its calls are not those of the new one.
        rules: how the legacy engine's parameter names and values become the new engine's.
        training: name (``train-…`` of one step, ``trajectory…`` of more) -> batch of every training record.
        training_stages, legacy_training_stages: the stages of a training forward, where they are not those of
            inference.
        loss_names: prefix of the new engine's loss names -> the legacy engine's.
        recipe_stages: what is compared of the training's set-up, without running the detector.
        setting_names: a regular expression of a legacy setting's name -> the new engine's name for it.
        other_settings: the settings of training that are known to differ.
        unread_settings: a regular expression of a config's keys -> why they are not compared.
        options: engine name -> config key (``model.test_cfg.score_thr``) -> value that it is set to.
        initial_seeds: from how many random initialisations each parameter's law is told.
        ap: limits of full-val AP.
        limits: every top-k, threshold and upper bound of the detector; ``parity cases --coverage`` tells what binds it.
    """

    id: str
    title: str
    legacy: str
    new: str
    configs: Mapping[str, str]
    reported_ap: float
    stages: Tuple[Stage, ...]
    tensors: Mapping[str, Meaning]
    weights: Tuple[Fill, ...]
    records: Mapping[str, Batch]
    deviations: Tuple[Deviation, ...] = ()
    cliffs: Mapping[str, str] = field(default_factory=dict)
    legacy_stages: Tuple[Stage, ...] = ()
    rules: Tuple[Rule, ...] = ()
    training: Mapping[str, TrainingBatch] = field(default_factory=dict)
    training_stages: Tuple[Stage, ...] = ()
    legacy_training_stages: Tuple[Stage, ...] = ()
    loss_names: Mapping[str, str] = field(default_factory=dict)
    recipe_stages: Tuple[str, ...] = ()
    setting_names: Mapping[str, str] = field(default_factory=dict)
    other_settings: Tuple[OtherSetting, ...] = ()
    unread_settings: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    initial_seeds: int = 8
    ap: ApLimits = field(default_factory=ApLimits)
    limits: Tuple[Limit, ...] = ()

    def meaning(self, name: str) -> Meaning:
        """Return what a tensor is, looked up without its process, its index and a feature map's stride."""
        base = base_name(re.sub(r"^rank\[\d+\]\.", "", name))
        return self.tensors.get(base) or self.tensors.get(base.rstrip("0123456789")) or Meaning("", "")

    def absent(self, inputs: Mapping[str, Any]) -> Tuple[str, ...]:
        """Return which of a stage's inputs the new engine is called without."""
        return tuple(
            each.tensor for each in self.deviations if each.tensor in inputs and each.takes_away(inputs[each.tensor])
        )

    def stages_of(self, engine: str) -> Tuple[Stage, ...]:
        """Return the stages with an engine's own calls."""
        return self.legacy_stages if engine == self.legacy and self.legacy_stages else self.stages

    def training_stages_of(self, engine: str) -> Tuple[Stage, ...]:
        """Return the stages of a training forward with an engine's own calls."""
        own = self.training_stages
        if engine == self.legacy and self.legacy_training_stages:
            own = self.legacy_training_stages
        return own or tuple(stage for stage in self.stages_of(engine) if stage.name != PREDICT)

    def training_stage_names(self) -> Tuple[str, ...]:
        """Return the stages of a training step, in the order in which they happen."""
        return (*(stage.name for stage in self.training_stages_of(self.new)), LOSS, GRADIENTS, OPTIMIZER_STEP)

    def stage(self, name: str, engine: str = "") -> Stage:
        """Return one stage, with an engine's own calls (the new one's by default)."""
        return next(stage for stage in self.stages_of(engine) if stage.name == name)

    def stage_names(self) -> Tuple[str, ...]:
        return (PREPROCESS, *(stage.name for stage in self.stages))

    def all_stage_names(self) -> Tuple[str, ...]:
        """Return every stage that some record of the case may have, each once, in order."""
        training = (*self.training_stage_names(), TRAJECTORY) if self.training else ()
        return tuple(dict.fromkeys((*self.stage_names(), *training, *self.recipe_stages)))


def base_name(name: str) -> str:
    """Return a tensor's name without its index.

    >>> base_name("references[2]")
    'references'
    """
    return name.split("[")[0]
