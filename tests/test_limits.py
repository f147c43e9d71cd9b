"""What binds a top-k, a threshold or a limit; what does not is told, and so is a declaration that is not true."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parity.cases.base import Case, Limit
from parity.cases.pairs import paired_id
from parity.cases.registry import all_cases, find_case
from parity.compare.decisions import Choice, chosen_scores, nearest_overlaps, nearest_scores
from parity.engines.limits import limits_of
from parity.errors import ParityError
from parity.limits import command
from parity.limits.bound import Binding, binding
from parity.limits.coverage import Coverage, Row, cover
from parity.records.draft import Draft
from parity.records.locate import default_fixtures
from parity.records.store import Record, write_record
from parity.report.diff import surroundings

Command = Callable[..., tuple[int, str, str]]
Frozen = Callable[..., Record]

DECISION = "head.choice.0"
WEIGHTS = {"sha256": "0" * 64, "seed": 0, "shapes": {}}


@pytest.fixture
def frozen(tmp_path: Path, case: Case) -> Frozen:
    """Return a function that writes a record of one decision, and reads it."""

    def write(
        kind: str,
        *,
        name: str = "padded",
        settings: dict[str, float] | None = None,
        size: int | None = None,
        objects: int = 0,
        **parts: Tensor,
    ) -> Record:
        draft = Draft(case)
        for part, tensor in parts.items():
            key = f"{DECISION}/{part}"
            draft.add(key, tensor, name=f"{DECISION}.{part}", stage="head", role="decision")
        draft.add("objects/a", torch.zeros(objects).long(), name="gt_labels[0]", stage="objects", role="input")
        decision = {
            **{"kind": kind, "stage": "head", "settings": settings or {}, "ordered": True},
            "size": size or parts["scores"].shape[-1],
        }
        manifest: dict[str, Any] = {
            **{"case": case.id, "record": name, "engines": {}, "weights": WEIGHTS, "islands": []},
            "batch": {"steps": 1, "per_step": 0, "scale": [0, 0]},
            "decisions": {DECISION: decision},
        }
        write_record(tmp_path / name, manifest, draft.entries, draft.tensors, force=True)
        return Record(tmp_path / name)

    return write


def limit(kind: str, value: float, **others: Any) -> Limit:
    return Limit("a limit", kind, value, "head.choice.*", **others)


def ten(*chosen: int) -> dict[str, Tensor]:
    """Return a choice among ten scores, from 0.9 down to 0."""
    return {"scores": torch.arange(9, -1, -1).double() / 10, "chosen": torch.tensor(chosen)}


# Kind by kind: bound, and not


@pytest.mark.parametrize(("value", "how"), [(3, "3 of 10"), (4, ""), (2, "")])
def test_a_topk_is_bound_where_it_leaves_something(frozen: Frozen, value: int, how: str) -> None:
    bound = binding(limit("topk", value), [frozen("topk", **ten(0, 1, 2))])
    assert bound == (Binding("padded", DECISION, how) if how else None)


def test_a_topk_of_everything_binds_nothing(frozen: Frozen) -> None:
    assert binding(limit("topk", 10), [frozen("topk", **ten(*range(10)))]) is None


@pytest.mark.parametrize(("value", "bound"), [(9, True), (10, False)])
def test_the_first_of_a_choice_need_more_behind_them(frozen: Frozen, value: int, bound: bool) -> None:
    found = binding(limit("first", value), [frozen("sort", **ten(*range(10)))])
    assert (found is not None) is bound
    assert found is None or found.how == "the first 9 of 10"


@pytest.mark.parametrize(("value", "objects", "bound"), [(4, 5, True), (4, 10, False), (5, 5, False), (3, 5, False)])
def test_rows_matched_with_each_object_need_a_row_more(frozen: Frozen, value: int, objects: int, bound: bool) -> None:
    """Twenty columns are four for each of five objects; another number of objects is another limit."""
    parts = {"scores": torch.zeros(500).double(), "chosen": torch.arange(20)}
    record = frozen("assignment", settings={"columns": 20.0}, objects=objects, **parts)
    found = binding(limit("per_object", value), [record])
    assert (found is not None) is bound
    assert found is None or found.how == "4 of 25 for each of 5 objects"


def test_as_many_rows_as_may_be_matched_bind_nothing(frozen: Frozen) -> None:
    parts = {"scores": torch.zeros(400).double(), "chosen": torch.arange(20)}
    record = frozen("assignment", settings={"columns": 20.0}, objects=5, **parts)
    assert binding(limit("per_object", 4), [record]) is None


@pytest.mark.parametrize(("heights", "bound"), [((5.05, 4.95), True), ((5.05, 4.0), False), ((6.0, 4.95), False)])
def test_an_overlap_is_bound_on_both_sides_or_not_at_all(
    frozen: Frozen, heights: tuple[float, float], bound: bool
) -> None:
    dropped, kept = heights
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, dropped], [0, 0, 10, kept]]).double()
    parts = {"scores": torch.tensor([0.9, 0.8, 0.7]).double(), "boxes": boxes, "chosen": torch.tensor([0, 2])}
    record = frozen("nms", settings={"iou_threshold": 0.5}, **parts)
    found = binding(limit("overlap", 0.5), [record])
    assert (found is not None) is bound
    assert found is None or found.how == "IoU 0.495 below and 0.505 above"
    assert binding(limit("overlap", 0.6), [record]) is None


@pytest.mark.parametrize(("scores", "bound"), [((0.51, 0.495), True), ((0.6, 0.495), False), ((0.51, 0.505), False)])
def test_a_threshold_is_bound_on_both_sides_or_not_at_all(
    frozen: Frozen, scores: tuple[float, float], bound: bool
) -> None:
    chosen = torch.tensor([index for index, score in enumerate(scores) if score > 0.5])
    record = frozen("threshold", settings={"threshold": 0.5}, scores=torch.tensor(scores).double(), chosen=chosen)
    assert (binding(limit("threshold", 0.5), [record]) is not None) is bound


@pytest.mark.parametrize(("least", "bound"), [(5e-4, True), (2e-3, False)])
def test_no_threshold_is_shown_by_what_scores_below_all_usual_ones(frozen: Frozen, least: float, bound: bool) -> None:
    scores = torch.tensor([0.3, least, 1e-9]).double()
    record = frozen("topk", scores=scores, chosen=torch.tensor([0, 1]))
    found = binding(limit("unfiltered", 0), [record])
    assert (found is not None) is bound
    assert found is None or found.how == "scores 0.0005 to 0.3"


def test_a_limit_of_training_is_bound_by_a_record_of_training_alone(frozen: Frozen) -> None:
    records = [frozen("topk", name=name, **ten(0)) for name in ("padded", "train-one")]
    assert [
        (binding(limit("topk", 1, training=training), records) or Binding("", "", "")).record
        for training in (False, True)
    ] == ["padded", "train-one"]
    assert binding(limit("topk", 1, training=True), records[:1]) is None


def test_an_unknown_kind_is_refused(frozen: Frozen) -> None:
    with pytest.raises(ParityError, match="limit 'a limit' is of kind 'most', there are topk, first, per_object"):
        binding(limit("most", 1), [frozen("topk", **ten(0))])


def test_of_a_ranking_only_candidates_are_stored_and_the_chosen_are_read_from_them() -> None:
    choice = Choice("topk", torch.tensor([0.9, 0.1]), torch.tensor([7]), {}, 9, candidates=torch.tensor([7, 8]))
    assert [row.tolist() for row in chosen_scores(choice)] == [[pytest.approx(0.9)]]


def test_what_lies_on_one_side_alone_is_told_by_an_infinity() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6]])
    choice = Choice("nms", torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), {"iou_threshold": 0.5}, 2, boxes)
    assert nearest_overlaps(choice) == (0.0, float("inf"))
    above = Choice("threshold", torch.tensor([0.9]), torch.tensor([0]), {"threshold": 0.5}, 1)
    assert nearest_scores(above) == (-float("inf"), pytest.approx(0.9))


# All of a case


def problems(case: Case, record: Record, *limits: Limit, **config: float) -> tuple[str, ...]:
    keys = {key.replace("_", ".", 1): value for key, value in config.items()}
    return cover(replace(case, limits=limits), [record], {"mmdet3": keys} if config else {}).problems


def test_a_declaration_that_is_true_has_no_problem(frozen: Frozen, case: Case) -> None:
    record = frozen("topk", **ten(0, 1, 2))
    declared = limit("topk", 3, keys={"mmdet3": "model.max"})
    assert problems(case, record, declared, model_max=3) == ()
    assert problems(case, record, replace(declared, said=1.5), model_max=1.5) == ()


def test_a_limit_of_a_config_that_no_row_names_is_a_problem(frozen: Frozen, case: Case) -> None:
    found = problems(case, frozen("topk", **ten(0, 1, 2)), limit("topk", 3), model_max=3)
    assert found == ("mmdet3's config has model.max = 3, which no limit of the case names",)


def test_a_row_that_names_what_no_config_has_is_a_problem(frozen: Frozen, case: Case) -> None:
    declared = [limit("topk", 3, keys={"mmdet3": key}) for key in ("model.max", "model.most")]
    found = problems(case, frozen("topk", **ten(0, 1, 2)), *declared, model_max=3)
    assert found == ("limit 'a limit' names model.most, which mmdet3's config does not have",)


def test_another_value_than_the_configs_is_a_problem(frozen: Frozen, case: Case) -> None:
    declared = limit("topk", 3, keys={"mmdet3": "model.max"})
    found = problems(case, frozen("topk", **ten(0, 1, 2)), declared, model_max=4)
    assert found == ("limit 'a limit' is declared as 3; mmdet3's config has model.max = 4",)


@pytest.mark.parametrize(
    ("kind", "settings", "owed"),
    [
        ("topk", {"largest": 1.0}, ["topk"]),
        ("threshold", {"threshold": 0.5}, ["threshold"]),
        ("nms", {"iou_threshold": 0.5, "max_num": -1.0, "score_threshold": 0.0}, ["overlap"]),
        ("nms", {"iou_threshold": 0.5, "max_num": 3.0, "score_threshold": 0.1}, ["overlap", "threshold", "topk"]),
    ],
)
def test_a_decision_that_no_row_names_is_a_problem(
    frozen: Frozen, case: Case, kind: str, settings: dict[str, float], owed: list[str]
) -> None:
    boxes = {"boxes": torch.zeros(10, 4)} if kind == "nms" else {}
    found = problems(case, frozen(kind, settings=settings, **ten(0, 1, 2), **boxes))
    needs = "the decisions head.choice.* of record padded need a limit of kind {!r}: none names them"
    assert list(found) == [needs.format(name) for name in owed]


def test_a_reason_for_what_a_record_binds_is_a_problem(frozen: Frozen, case: Case) -> None:
    found = problems(case, frozen("topk", **ten(0, 1, 2)), limit("topk", 3, reason="nothing is that large"))
    assert found == ("limit 'a limit' has a reason why nothing binds it, but record padded does: remove that",)


def test_a_setting_without_a_reason_is_a_problem(frozen: Frozen, case: Case) -> None:
    declared = (limit("setting", 3), limit("topk", 3))
    (found,) = problems(case, frozen("topk", **ten(0, 1, 2)), *declared)
    assert found == "limit 'a limit' chooses among nothing: its reason has to say what shows it"


def test_what_is_unbound_is_told_unless_it_has_a_reason(frozen: Frozen, case: Case) -> None:
    declared = [limit("topk", 3), limit("topk", 10), limit("topk", 11, reason="no image is that large")]
    found = cover(replace(case, limits=tuple(declared)), [frozen("topk", **ten(0, 1, 2))], {})
    assert [row.value for row in found.unbound] == [10]
    told = list(command.lines(found))
    assert told[0] == f"{case.id}: 1 of 3 limits bound by a record"
    assert told[1:] == [
        "  bound    a limit = 3 (in the code): padded, head.choice.0: 3 of 10",
        "  UNBOUND  a limit = 10 (in the code): no record binds it, and no reason is given",
        "  reason   a limit = 11 (in the code): no record binds it, because no image is that large",
    ]


@pytest.mark.parametrize(
    ("rows", "wrong", "status"),
    [
        ((Row("a", 1, "", record="padded"),), (), 0),
        ((Row("a", 1, "", reason="because"),), (), 0),
        ((Row("a", 1, ""),), (), 3),
        ((Row("a", 1, ""),), ("a limit that no row names",), 1),
    ],
)
def test_the_exit_status_tells_wrong_from_unbound(rows: tuple[Row, ...], wrong: tuple[str, ...], status: int) -> None:
    good = Coverage("b", (Row("a", 1, "", record="padded"),), ())
    assert command.status([good, Coverage("c", rows, wrong)]) == status


# The command


def test_limits_of_a_config_are_told_by_their_names() -> None:
    model = {
        **{"num_queries": 900, "strides": [8, 16], "dense_topk_ratio": 1.5, "with_box_refine": True},
        "heads": [{"nms": {"type": "nms", "iou_threshold": 0.5}}],
        "test_cfg": {"rcnn": {"keep": 7}},
    }
    assert limits_of({"model": model, "train_cfg": {"max_per_img": 1}}) == {
        "model.num_queries": 900,
        "model.dense_topk_ratio": 1.5,
        "model.heads.0.nms.iou_threshold": 0.5,
        "model.test_cfg.rcnn.keep": 7,
    }


def test_the_command_tells_what_is_unbound_with_status_3(
    parity_command: Command, copied_record: Path, case: Case
) -> None:
    pytest.importorskip("mmdet", reason="mmdet is missing; `parity env mmdet3` installs it")
    status, out, _ = parity_command("cases", "--fixtures", copied_record.parents[1], "--coverage", case.id)
    assert status == 3
    assert re.search(r"bound    detections of an image = 300 \(model\.test_cfg\.max_per_img\): padded, predict", out)
    assert "UNBOUND  queries = 900 (model.num_queries): no record binds it, and no reason is given" in out
    assert "WRONG" not in out


def test_the_limits_of_the_legacy_config_are_those_that_a_record_holds(
    parity_command: Command, copied_record: Path, case: Case
) -> None:
    pytest.importorskip("mmdet", reason="mmdet is missing; `parity env mmdet3` installs it")
    path = copied_record / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["limits"] = {"model.num_queries": 899.0, "model.least": 1.0}
    path.write_text(json.dumps(manifest))
    status, out, _ = parity_command("cases", "--fixtures", copied_record.parents[1], "--coverage", case.id)
    assert status == 1
    assert "WRONG    ddq_mmdet3rc's config has model.num_queries = 899" not in out
    assert "limit 'queries' is declared as 900; ddq_mmdet3rc's config has model.num_queries = 899" in out
    assert "ddq_mmdet3rc's config has model.least = 1, which no limit of the case names" in out


def test_coverage_of_a_case_without_records_is_one_line(parity_command: Command, tmp_path: Path, case: Case) -> None:
    for words in (("--coverage", case.id), ("--coverage",)):
        status, out, err = parity_command("cases", "--fixtures", tmp_path, *words)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "holds no record" in err
    status, _, err = parity_command("cases", "--coverage", "ddq_detr_4scale_r50_12")
    assert status == 2
    assert f"did you mean '{case.id}'?" in err


def test_the_page_of_a_run_shows_the_limits_of_its_cases(
    parity_command: Command, copied_record: Path, tmp_path: Path, case: Case
) -> None:
    pytest.importorskip("mmdet", reason="mmdet is missing; `parity env mmdet3` installs it")
    words = ("--stage", "preprocess", "--mode", "isolated", "--dtype", "fp64", "--report-dir", tmp_path / "run")
    status, _, err = parity_command("check", case.id, "--fixtures", copied_record.parents[1], *words)
    assert status == 0, err
    environment = json.loads((tmp_path / "run" / "results.json").read_text())["environment"]
    assert [row["limit"] for row in environment["limits"][case.id]["rows"]] == [row.name for row in case.limits]
    assert "padded, predict.topk.0: 300 of 72000" in (tmp_path / "run" / "index.html").read_text()
    assert "limits" not in surroundings(environment)


def test_a_pair_of_other_engines_has_no_limits_of_its_own(tmp_path: Path, case: Case) -> None:
    assert command.told([paired_id(case.id, "mmdet3", "mmdet3_compiled")], tmp_path) == {}


SHIPPED = sorted(name for name in all_cases() if re.fullmatch(r"ddq_\w+_\d+e", name))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_record_binds_every_limit_of_a_shipped_case_or_there_is_a_reason(name: str) -> None:
    pytest.importorskip("mmdet", reason="mmdet is missing; `parity env mmdet3` installs it")
    (found,) = command.covered([name], default_fixtures())
    assert found.problems == ()
    assert found.unbound == ()
    assert len([row for row in found.rows if row.reason]) <= 2


def test_the_limits_of_both_configs_are_known() -> None:
    """What a record of today says was read by the legacy engine itself."""
    for name in SHIPPED:
        said = Record(default_fixtures() / name / "limits").manifest["limits"]
        legacy = all_cases()[name].legacy
        assert sorted(said) == sorted(limit.keys[legacy] for limit in all_cases()[name].limits if legacy in limit.keys)


def test_every_shipped_case_declares_its_limits() -> None:
    assert len(SHIPPED) == 7
    for case in map(find_case, SHIPPED):
        assert {"topk", "first", "overlap", "unfiltered", "per_object"} <= {limit.kind for limit in case.limits}
