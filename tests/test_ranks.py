"""Several processes that train together: what is whose, what they exchange, and that no failure leaves one behind."""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from test_host import is_gone

from parity.cases.base import GRADIENTS, LOSS, OPTIMIZER_STEP, TrainingBatch
from parity.cases.registry import find_case
from parity.check_ranks import greatest_difference, new_ranks
from parity.compare.tensors import measure
from parity.compare.verdicts import Verdict
from parity.engines import host, ranks
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.ranks import Ranks, labelled, merged, of_rank, share_of
from parity.engines.session import Session
from parity.engines.training import AGREE
from parity.errors import EngineError, ParityError
from parity.mutants.registry import find_mutant
from parity.records.images import drawn_objects, encoded_images
from parity.records.kinds import draws_among
from parity.report.results import TensorResult

# Stands in for parity/engines/session.py in the workers: process 1 behaves as it was asked to load, then both exchange.
STUB = """
import os, time
import torch
from parity.engines import group
from parity.engines.base import Run
from parity.errors import ParityError

class Session:
    def __init__(self, engine, root="", device="cpu"):
        self.join_group, self.leave_group = group.join, group.leave

    def fingerprint(self):
        return {"pid": str(os.getpid()), "size": str(group.size())}

    def load(self, case_id, dtype):
        self.behaviour = case_id
        return {}

    def fill(self, seed, fills):
        return str(os.getpid()) if self.behaviour == "differs" else "same"

    def train(self, batch, draws, forced, seed):
        model = torch.nn.Linear(1, 2)
        if seed == 1:
            getattr(self, self.behaviour)()
            model.weight.grad = batch["image"].reshape(2, 1).clone()
            model.bias.grad = torch.tensor([2.0, 4.0])
        else:
            model.weight.grad = batch["image"].reshape(2, 1).clone()
        group.average_gradients(model)
        agree = group.agree({"weight": model.weight.grad, "bias": model.bias.grad})
        apart = group.agree({"image": batch["image"]})
        tensors = {"weight": model.weight.grad, "bias": model.bias.grad, "agree": torch.tensor([agree, apart])}
        tensors["objects"] = torch.tensor([len(batch["gt_labels[0]"])])
        return Run(tensors, produced={"gradients": ("weight", "bias", "agree"), "loss": ("objects",)})

    def well(self):
        pass

    def exits(self):
        os.write(2, b"last words\\n")
        os._exit(3)

    def hangs(self):
        time.sleep(1000)

    def raises(self):
        raise KeyError("no such layer")

    def refuses(self):
        raise ParityError("no such thing")
"""


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the workers be stubs, in a folder whose name no address could hold."""
    content, replaced = io.BytesIO(host.worker_source()), io.BytesIO()
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(replaced, "w") as target:
        for name in source.namelist():
            target.writestr(name, STUB if name == "parity/engines/session.py" else source.read(name))
    monkeypatch.setattr(host, "worker_source", replaced.getvalue)
    folder = tmp_path / "a folder #1?x=%20 of ours"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@contextmanager
def two(*, time_limit: float = 300.0) -> Iterator[Ranks]:
    with ExitStack() as stack:
        started = [
            stack.enter_context(RemoteSession("stub_engine", python=sys.executable, root="", time_limit=time_limit))
            for _ in range(2)
        ]
        yield stack.enter_context(Ranks(started))


BATCH = {
    "rank[0].image": torch.tensor([1.0, 3.0]),
    "rank[1].image": torch.tensor([5.0, 5.0]),
    "gt_labels[0]": torch.zeros(3),
    "gt_labels[1]": torch.zeros(1),
}


def test_processes_average_their_gradients_and_tell_whether_they_agree(scratch: Path) -> None:
    with two() as together:
        together.load("well", "fp64")
        run = together.train(BATCH)
        assert run.tensors["weight"].flatten().tolist() == [3.0, 4.0]
        assert run.tensors["bias"].tolist() == [1.0, 2.0]  # process 0 has none: zeros
        assert run.tensors["agree"].tolist() == [True, False]  # of the gradients; the images are each one's own
        assert [int(run.tensors[f"rank[{rank}].objects"]) for rank in range(2)] == [3, 1]
        assert run.produced == {
            "gradients": ("weight", "bias", "agree"),
            "loss": ("rank[0].objects", "rank[1].objects"),
        }
    assert list(scratch.iterdir()) == []


def test_processes_train_alone_again_once_the_group_is_left(scratch: Path) -> None:
    with two() as together:
        assert [session._ask("fingerprint")["size"] for session in together.sessions] == ["2", "2"]
        together.leave()
        assert [session._ask("fingerprint")["size"] for session in together.sessions] == ["1", "1"]
        with Ranks(together.sessions) as again:
            again.load("well", "fp64")
            assert again.train(BATCH).tensors["weight"].flatten().tolist() == [3.0, 4.0]


def test_siblings_train_alone_again_as_well(scratch: Path) -> None:
    with two() as together:
        assert together.sibling(COLOUR="blue").sessions[0]._ask("fingerprint")["size"] == "2"
        together.leave()
        assert together.sessions[0].sibling(COLOUR="blue")._ask("fingerprint")["size"] == "1"
        with Ranks(together.sessions) as again:
            assert again.sibling(COLOUR="blue").sessions[0]._ask("fingerprint")["size"] == "2"


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        ("exits", EngineError, r"^process 1 of 2: engine stub_engine, train: the worker died; [^\n]*$"),
        ("raises", EngineError, r"^process 1 of 2: engine stub_engine, train: KeyError: 'no such layer'$"),
        ("refuses", ParityError, r"^process 1 of 2: engine stub_engine, train: no such thing$"),
    ],
)
def test_a_process_that_fails_ends_all_with_one_line(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, kind: type[ParityError], message: str
) -> None:
    monkeypatch.setattr(ranks, "GRACE", 1.0)  # the other one waits for the exchange: it says nothing
    with two() as together:
        together.load(behaviour, "fp64")
        pids = [int(session.fingerprint()["pid"]) for session in together.sessions]
        with pytest.raises(kind, match=message) as caught:
            together.train(BATCH)
        assert type(caught.value) is kind
        assert all(session.closed for session in together.sessions)
        if behaviour == "exits":
            assert "last words" in caught.value.detail
    assert all(is_gone(pid) for pid in pids)
    assert list(scratch.iterdir()) == []


def test_a_process_that_hangs_ends_all_at_the_time_limit(scratch: Path) -> None:
    with two() as together:
        together.load("hangs", "fp64")
        for session in together.sessions:
            session.time_limit = 3.0
        pids = [int(session.fingerprint()["pid"]) for session in together.sessions]
        with pytest.raises(EngineError, match=r"^process \d of 2: engine stub_engine, train: no answer within 3 s"):
            together.train(BATCH)
    assert all(is_gone(pid) for pid in pids)
    assert list(scratch.iterdir()) == []


def test_an_interrupt_while_processes_train_ends_them(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with two() as together:
        together.load("hangs", "fp64")
        pids = [int(session.fingerprint()["pid"]) for session in together.sessions]
        monkeypatch.setattr(ranks, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            together.train(BATCH)
    assert all(is_gone(pid) for pid in pids)


def test_processes_with_other_weights_are_refused(scratch: Path) -> None:
    with two() as together:
        together.load("differs", "fp64")
        with pytest.raises(ParityError, match=r"^engine stub_engine: its 2 processes differ before they train$"):
            together.fill(0)


def test_several_steps_are_refused(scratch: Path) -> None:
    with two() as together, pytest.raises(ParityError, match="several processes take one step together, not 3"):
        together.train(BATCH, steps=3)


def test_images_and_their_objects_are_dealt_out_in_turn() -> None:
    names = ["rank[0].image", "rank[1].image", *(f"gt_boxes[{image}]" for image in range(4))]
    batch = {name: torch.tensor(number) for number, name in enumerate(names)}
    assert {name: int(tensor) for name, tensor in share_of(batch, 0, 2).items()} == {
        "image": 0,
        "gt_boxes[0]": 2,
        "gt_boxes[1]": 4,
    }
    assert {name: int(tensor) for name, tensor in share_of(batch, 1, 2).items()} == {
        "image": 1,
        "gt_boxes[0]": 3,
        "gt_boxes[1]": 5,
    }


def test_draws_go_back_to_the_process_that_drew_them() -> None:
    numbers = torch.zeros(1)
    run = merged([Run({"draw.rand().0": numbers + rank}, produced={"decoder": ("draw.rand().0",)}) for rank in (0, 1)])
    assert [float(of_rank(draws_among(run.tensors), rank)["rand().0"]) for rank in (0, 1)] == [0.0, 1.0]


def test_what_processes_should_have_in_common_is_kept_once_and_of_each_where_it_differs() -> None:
    def run(norm: float) -> Run:
        tensors = {"norm": torch.tensor(norm), "own_norm": torch.tensor(norm), "total": torch.tensor(1.0)}
        return Run(tensors, produced={GRADIENTS: ("norm", "own_norm"), LOSS: ("total",), OPTIMIZER_STEP: ()})

    same, other = merged([run(1.0), run(1.0)]), merged([run(1.0), run(2.0)])
    own = ("rank[0].own_norm", "rank[1].own_norm")
    assert same.produced[GRADIENTS] == ("norm", *own)
    assert same.produced[LOSS] == ("rank[0].total", "rank[1].total")
    assert other.produced[GRADIENTS] == ("norm", own[0], "rank[1].norm", own[1])


def test_two_processes_with_the_same_share_do_what_one_does_alone() -> None:
    """Then every average is what each process has itself: x / 2 + x / 2, without any rounding."""
    case = find_case("ddq_fcn_r50_12e")
    batch = TrainingBatch(seed=1, sizes=((40, 56),), objects=(3,))
    files, objects = encoded_images(batch, seed=1), drawn_objects(batch)
    doubled = {**objects, **{name.replace("[0]", "[1]"): tensor for name, tensor in objects.items()}}
    alone = Session(case.new)
    alone.configure(threads=1)
    try:
        alone.load(case.id, "fp64")
        alone.fill(1)
        expected = alone.train({**alone.preprocess(files, (0, 0)).tensors, **objects})
    finally:
        alone.close()
    with new_ranks(case, 2, device="cpu", planted=None) as together:
        together.configure(threads=1)
        together.load(case.id, "fp64")
        together.fill(1)
        actual = together.train({**together.preprocess(files * 2, (0, 0)).tensors, **doubled})
    assert bool(actual.tensors[AGREE])
    assert set(actual.produced[OPTIMIZER_STEP]) == {*expected.produced[OPTIMIZER_STEP], AGREE}
    for name in expected.produced[LOSS]:
        for rank in range(2):
            assert measure(actual.tensors[labelled(rank, name)], expected.tensors[name]).rel_rms <= 1e-14, name
    for stage in (GRADIENTS, OPTIMIZER_STEP):
        for name in expected.produced[stage]:
            assert measure(actual.tensors[name].double(), expected.tensors[name].double()).rel_rms <= 1e-14, name


def test_a_note_says_how_near_losses_and_gradients_came() -> None:
    compared = (("a", 1e-15), ("b", 2e-14))
    results = tuple(TensorResult(name, Verdict.EQUAL, rel_rms=error, count=1) for name, error in compared)
    assert greatest_difference(LOSS, results, 2) == (
        "2 processes: the greatest relative difference (RMS) is 2.0e-14, of b",
    )
    assert greatest_difference("neck", results, 2) == ()
    assert greatest_difference(LOSS, (), 2) == ()


def test_other_processes_find_a_mutant_by_its_id_and_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from parity.mutants import Mutant\nfrom parity.mutants.plant import together\n"
        "MUTANTS = [Mutant('mine', 'loss', ('ddq_fcn_r50_12e',), together(), 'because')]\n"
    )
    assert find_mutant("loss-processes-sum", "").file == ""
    assert find_mutant("mine", str(file)).file == str(file)
    with pytest.raises(ParityError, match=r"^mutant mine is not in the families: other processes cannot plant it$"):
        find_mutant("mine", "")
