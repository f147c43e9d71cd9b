"""The words a case is declared in. Cases are data: everything here is a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Mapping, Tuple, Union

from parity.cases.patterns import Pattern, names
from parity.weights.rules import Rule

PREPROCESS = "preprocess"

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
class Batch:
    """What a record is made of: drawn images of the given sizes, or files shown through the test pipeline.

    Attributes:
        seed: seeds the weights and the drawn images.
        sizes: (height, width) in pixels of every drawn image; they are not resized.
        files: names of photographs (see ``records.images``), resized into ``scale``.
        scale: (long side, short side) in pixels that ``files`` are resized into, ratio kept.
        fills: rules for the weights that go before those of the case: a crowd of good candidates, say.
    """

    seed: int
    sizes: Tuple[Tuple[int, int], ...] = ()
    files: Tuple[str, ...] = ()
    scale: Tuple[int, int] = (0, 0)
    fills: Tuple[Fill, ...] = ()


@dataclass(frozen=True)
class Deviation:
    """A difference between the engines that is known, real and harmless, with its reason.

    ``none_if_all_false``: the new engine passes ``None`` for this mask where nothing is masked.
    """

    tensor: str
    kind: str
    reason: str
    link: str


@dataclass(frozen=True)
class Case:
    """One detector to prove.

    Attributes:
        configs: engine name -> config, relative to the legacy checkout or to mmdet's own configs.
        reported_ap: COCO val2017 box AP that the originals report.
        tensors: name without index -> meaning.
        cliffs: decision name prefix -> why a change of it below noise moves outputs by O(1).
        legacy_stages: the stages as the legacy engine has them, where its calls are not those of the new one.
        rules: how the legacy engine's parameter names and values become the new engine's.
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

    def meaning(self, name: str) -> Meaning:
        """Return what a tensor is, looked up without its index and without a feature map's stride."""
        base = base_name(name)
        return self.tensors.get(base) or self.tensors.get(base.rstrip("0123456789")) or Meaning("", "")

    def stages_of(self, engine: str) -> Tuple[Stage, ...]:
        """Return the stages with an engine's own calls."""
        return self.legacy_stages if engine == self.legacy and self.legacy_stages else self.stages

    def stage(self, name: str, engine: str = "") -> Stage:
        """Return one stage, with an engine's own calls (the new one's by default)."""
        return next(stage for stage in self.stages_of(engine) if stage.name == name)

    def stage_names(self) -> Tuple[str, ...]:
        return (PREPROCESS, *(stage.name for stage in self.stages))


def base_name(name: str) -> str:
    """Return a tensor's name without its index.

    >>> base_name("references[2]")
    'references'
    """
    return name.split("[")[0]
