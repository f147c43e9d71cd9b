"""Draft stages from what was observed of both engines: which calls are the same step, and what their tensors are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.cases.base import Call, Meaning, Stage
from parity.cases.patterns import Constant, Detections, Every, Instances, Proposals, ScoredBoxes
from parity.drafting.pairing import Paired, paired
from parity.drafting.trees import Names, Unreadable, flat, missing, reading, tensors_of, writing

Tree = Mapping[str, Any]
Observed = Sequence[Mapping[str, Any]]

# Stage, where the legacy engine does it, where the new one does; the first of several paths that was called counts.
# A detector's kind shows in which of them it has.
BOUNDARIES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("backbone", ("backbone",), ("backbone",)),
    ("neck", ("neck",), ("neck",)),
    ("encoder", ("bbox_head.transformer.encoder",), ("forward_encoder",)),
    ("decoder", ("bbox_head.transformer.decoder",), ("forward_decoder",)),
    ("rpn_head", ("rpn_head",), ("rpn_head",)),
    ("proposals", ("rpn_head.get_bboxes",), ("rpn_head.predict_by_feat",)),
    ("roi_head", ("roi_head._bbox_forward",), ("roi_head._bbox_forward",)),
    ("bbox_head", ("bbox_head",), ("bbox_head",)),
    (
        "predict",
        (
            "bbox_head.get_bboxes",
            "roi_head.bbox_head.get_bboxes",
            *(f"roi_head.bbox_head.{i}.get_bboxes" for i in (2, 5)),
            "mmdet.models.roi_heads.sparse_roi_head:bbox2result",
        ),
        (
            "bbox_head.predict_by_feat",
            "roi_head.bbox_head.predict_by_feat",
            *(f"roi_head.bbox_head.{i}.predict_by_feat" for i in (2, 5)),
            "roi_head.predict_bbox",
        ),
    ),
)
HELPERS = ("pre_transformer", "pre_decoder", "rpn_head.predict", "rpn_head.simple_test_rpn")
PATHS = (*dict.fromkeys(path for _, legacy, new in BOUNDARIES for path in (*legacy, *new)), *HELPERS)
DETECTIONS = {"bboxes": "boxes", "scores": "scores", "labels": "labels"}
PROPOSALS = {"bboxes": "proposals", "scores": "proposal_scores"}
# What legacy calls by another name than new, and what a reader knows it as.
KNOWN_NAMES = {"all_layers_cls_scores": "cls_scores", "all_layers_bbox_preds": "bbox_preds"}
# More elements than this are too many to send and to keep, if no stage is fed them: some rows have to do.
MANY_ELEMENTS, ENOUGH_ELEMENTS = 2**23, 2**21


@dataclass
class Drafted:
    """Stages as far as they could be drafted, the tensors' meanings, and what a reader has to do by hand."""

    stages: list[Stage] = field(default_factory=list)
    legacy_stages: list[Stage] = field(default_factory=list)
    tensors: dict[str, Meaning] = field(default_factory=dict)
    to_do: list[str] = field(default_factory=list)


def kind_of(calls: Observed) -> str:
    """Return what sort of detector was observed."""
    paths = {call["path"] for call in calls}
    if any("transformer" in path or path == "forward_decoder" for path in paths):
        return "DETR-like"
    return "two-stage" if any(path.startswith("roi_head") for path in paths) else "one-stage"


class Drafter:
    """Goes through the boundaries in order; what one stage writes the next may read."""

    def __init__(self, legacy: Observed, new: Observed, image_size: tuple[int, int]) -> None:
        self.calls = {"legacy": legacy, "new": new}
        self.names = {"legacy": Names({0: "image"}), "new": Names({0: "image"})}
        self.height = image_size[0]
        self.drafted = Drafted()

    def draft(self) -> Drafted:
        """Return the stages of both engines."""
        for stage, legacy_paths, new_paths in BOUNDARIES:
            first, *_ = *self._ways("legacy", legacy_paths), {}
            ways = self._ways("new", new_paths)
            steps = [step for step in first if any(step in way for way in ways)]
            if bool(first) != bool(ways) or (first and not steps):
                self._leave(stage, f"legacy makes {len(first)} such calls, new {len(ways[0]) if ways else 0}")
            for step in steps:
                name = stage if step is None else f"{stage}_{step}"
                self._stage(name, first[step], [way[step] for way in ways if step in way])
        return self.drafted

    def _ways(self, engine: str, paths: Sequence[str]) -> list[dict[Any, list[Mapping[str, Any]]]]:
        """Return the calls of each of the paths that was called at all, by the number of their RoI stage."""
        ways = []
        for path in paths:
            steps: dict[Any, list[Mapping[str, Any]]] = {}
            for call in self.calls[engine]:
                if call["path"] == path:
                    steps.setdefault(call["arguments"].get("stage", {}).get("constant"), []).append(call)
            ways += [steps] if steps else []
        return ways

    def _leave(self, stage: str, reason: str, *, remedy: str = "declare its calls by hand") -> None:
        self.drafted.to_do.append(f"stage {stage} is left out: {reason}; {remedy}, or leave it to the next stage")

    def _stage(
        self, name: str, legacy: Sequence[Mapping[str, Any]], ways: Sequence[Sequence[Mapping[str, Any]]]
    ) -> None:
        """Draft one stage by the first of the new engine's ways to do it whose arguments can be made."""
        reasons = []
        for new in ways:
            try:
                helpers = tuple(self._helpers(name, new[0]))
                reads = self._reads(new[0], self.names["new"])
            except Unreadable as error:
                reasons.append(f"the new engine's {new[0]['path']} reads {error}, which no earlier call gives")
                continue
            finally:
                self.names["new"].forget_private()
            return self._written(name, legacy, new, helpers, reads)
        return self._leave(name, "; ".join(reasons), remedy="let a Call of an earlier stage write that")

    def _written(
        self,
        name: str,
        legacy: Sequence[Mapping[str, Any]],
        new: Sequence[Mapping[str, Any]],
        helpers: tuple[Call, ...],
        reads: Mapping[str, Any],
    ) -> None:
        """Draft a stage whose arguments are known."""
        if "instances" in new[0]["result"] or "instances" in legacy[0]["result"]:
            patterns = self._detections(name, legacy, new)
        else:
            patterns = self._tensors(name, legacy[0]["result"], new[0]["result"])
        if patterns is None:
            return
        legacy_writes, new_writes, extra = patterns
        self.drafted.stages.append(Stage(name, (*helpers, self._call(new[0], reads, new_writes))))
        self.drafted.legacy_stages.append(self._legacy_stage(name, legacy[0], legacy_writes, extra))

    def _legacy_stage(self, name: str, call: Mapping[str, Any], writes: Any, extra: Mapping[str, bool]) -> Stage:
        after = "encoder" if name == "decoder" else ""
        try:
            if extra.get("each_image"):
                raise Unreadable("each image")
            reads = self._reads(call, self.names["legacy"])
            return Stage(name, (self._call(call, reads, writes),), begins_after=after)
        except Unreadable:  # made inside of another call: seen as it passes, not replayed
            step = call["arguments"].get("stage")
            reads = {"stage": Constant(step["constant"])} if step else {}
            seen = Call(call["path"], reads, writes, when=tuple(reads), **extra)
            if extra.get("of_arguments"):  # what they are is decided before they are handed on
                after = self.drafted.legacy_stages[-1].name
            return Stage(name, (seen,), begins_after=after, replayable=False)

    @staticmethod
    def _reads(call: Mapping[str, Any], names: Names) -> dict[str, Any]:
        return {name: reading(tree, names, argument=name) for name, tree in call["arguments"].items()}

    @staticmethod
    def _call(call: Mapping[str, Any], reads: Mapping[str, Any], writes: Any) -> Call:
        when = ("stage",) if isinstance(reads.get("stage"), Constant) else ()
        return Call(call["path"], reads, writes, when=when)

    def _helpers(self, stage: str, call: Mapping[str, Any]) -> Iterator[Call]:
        """Yield earlier calls of the new engine that give what this one reads and the legacy engine does not show."""
        names = self.names["new"]
        unknown = [n for tree in call["arguments"].values() for n in missing(tree, names)]
        for earlier in self.calls["new"]:
            if earlier is call or earlier["path"] not in (*HELPERS, "forward_encoder"):
                continue
            wanted = [n for n in tensors_of(earlier["result"]) if n in unknown and n not in names.tensors]
            if wanted:
                yield from self._helpers(stage, earlier)
                reads = self._reads(earlier, names)
                yield self._call(earlier, reads, names.with_private(earlier, wanted))

    def _tensors(self, stage: str, legacy: Tree, new: Tree) -> tuple[Any, Any, dict[str, bool]] | None:
        pairs = paired(flat(legacy), flat(new))
        if not pairs:
            self._leave(stage, f"the legacy gives {_shapes(legacy)}, the new engine {_shapes(new)}")
            return None
        forms: dict[int, Any] = {}
        new_forms: dict[int, Any] = {}
        for position, pair in enumerate(pairs):
            name = self._name(stage, pair.new[0], position, [other.new[0] for other in pairs])
            some = self._some(name, pair)
            if some is not None:
                forms[pair.legacy["t"]] = new_forms[pair.new[0]["t"]] = some
                text = f"{stage}: every {some.step}th row of {_described(pair.new[0])}"
                self.drafted.tensors.setdefault(name, Meaning(text, ""))
                continue
            for i, tree in enumerate(pair.new):
                self.names["new"].tensors[tree["t"]] = name if len(pair.new) == 1 else f"{name}[{i}]"
            if pair.form(name) is not None:
                forms[pair.legacy["t"]] = pair.form(name)
            if len(pair.new) == 1:
                self.names["legacy"].tensors[pair.legacy["t"]] = name
            self.drafted.tensors.setdefault(name.split("[")[0], Meaning(f"{stage}: {_described(pair.new[0])}", ""))
        return writing(legacy, self.names["legacy"], forms), writing(new, self.names["new"], new_forms), {}

    def _some(self, name: str, pair: Paired) -> Every | None:
        """Return the pattern that keeps some rows of a tensor too large to keep; nothing if it is not, or is read."""
        elements = math.prod(pair.legacy["shape"])
        whole = pair.form(name) is not None or self._argument(pair.new[0]["t"])
        return None if whole or elements <= MANY_ELEMENTS else Every(name, -(-elements // ENOUGH_ELEMENTS))

    def _name(self, stage: str, tree: Tree, position: int, together: Sequence[Tree]) -> str:
        """Return a tensor's name: a feature map's by its stride, any other's by the argument that it becomes."""
        if stage in ("backbone", "neck") and len(tree["shape"]) == 4:
            strides = [round(math.log2(self.height / other["shape"][2])) for other in together]
            letter = stage[0].replace("b", "c").replace("n", "p")
            own = strides[position]
            return f"{letter}{own}" if len(set(strides)) == len(strides) else f"{letter}[{position}]"
        found = self._argument(tree["t"]) or str(tree["slot"] or stage)
        found = f"{found}_{stage.rsplit('_', 1)[1]}" if stage.startswith("roi_head_") else found
        same = [other for other in self.names["new"].tensors.values() if other.split("[")[0] == found.split("[")[0]]
        return f"{stage}_{found}" if found in same else found

    def _argument(self, number: int) -> str:
        """Return the name of the argument that a tensor becomes later on, with its place where that is a list."""
        for call in self.calls["new"]:
            for argument, tree in call["arguments"].items():
                if tree.get("t") == number and "derived" not in tree:
                    return KNOWN_NAMES.get(str(argument), str(argument))
                inner = [each.get("t") for each in tree.get("seq", ())]
                if number in inner and argument not in ("x", "feats", "inputs", "references"):
                    return f"{KNOWN_NAMES.get(argument, argument)}[{inner.index(number)}]"
        return ""

    def _detections(
        self, stage: str, legacy: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
    ) -> tuple[Any, Any, dict[str, bool]] | None:
        given = new[0]["result"].get("instances")
        known = PROPOSALS if stage == "proposals" else DETECTIONS
        if given is None or not set(known) <= set(given):
            self._leave(stage, "the new engine gives no boxes with scores there")
            return None
        new_writes = Instances(tuple((attribute, name) for attribute, name in known.items()))
        for attribute, name in known.items():
            self.names["new"].name_images(given[attribute], name)
            self.drafted.tensors[name] = Meaning(f"{stage}: {attribute} of one image", _unit(attribute))
        first = legacy[0]["result"].get("seq", [])
        if stage == "proposals" and all(len(tree.get("shape", ())) == 2 for tree in first):
            self.names["legacy"].name_images(first, "proposals")
            return Proposals("proposals", "proposal_scores"), new_writes, {}
        if first and "seq" in first[0]:
            return Detections("boxes", "scores", "labels"), new_writes, {}
        if len(first) == 2 and [len(tree.get("shape", ())) for tree in first] == [2, 1]:
            return (ScoredBoxes("boxes", "scores"), "labels"), new_writes, {"each_image": True}
        if {"bboxes", "labels"} <= set(legacy[0]["arguments"]):
            pattern = {"bboxes": ScoredBoxes("boxes", "scores"), "labels": "labels"}
            return pattern, new_writes, {"each_image": True, "of_arguments": True}
        self._leave(stage, f"the legacy engine gives {_shapes(legacy[0]['result'])} there, which is no known form")
        return None


def _described(tree: Tree) -> str:
    return f"{tree['slot'] or 'result'} ({', '.join(map(str, tree['shape']))})"


def _shapes(tree: Tree) -> str:
    return ", ".join(str(tuple(each["shape"])) for each in flat(tree)) or "no tensor"


def _unit(attribute: str) -> str:
    return {"bboxes": "pixels xyxy", "scores": "probability", "labels": "class index"}[attribute]
