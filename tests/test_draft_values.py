"""What ``parity new-case`` says of the checkpoints that it is given."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from parity.drafting.match import VALUE, match
from parity.drafting.values import checkpoint_values, remarks
from parity.errors import ParityError

OLD = {"old.a": [4], "old.b": [4]}
NEW = {"new.c": [4], "new.d": [4]}


def saved(path: Path, **values: float) -> Path:
    torch.save({"state_dict": {name.replace("_", "."): torch.full((4,), x) for name, x in values.items()}}, path)
    return path


def options(checkpoint: Path | None, new_checkpoint: Path | None) -> Namespace:
    return Namespace(checkpoint=checkpoint, new_checkpoint=new_checkpoint, trust_pickle=False)


def test_two_checkpoints_pair_by_value_and_fit(tmp_path: Path) -> None:
    given = options(saved(tmp_path / "a.pth", old_a=1.0, old_b=2.0), saved(tmp_path / "b.pth", new_c=2.0, new_d=1.0))
    legacy, new = checkpoint_values(given)
    found = match(OLD, NEW, source_values=legacy.hashes, target_values=new.hashes)
    assert [(p.source, p.target, p.how) for p in found.pairs] == [("old.a", "new.d", VALUE), ("old.b", "new.c", VALUE)]
    assert list(remarks(legacy, new, shapes=(OLD, NEW))) == [
        f"--checkpoint {tmp_path / 'a.pth'}: 2 of the model's 2 keys, 0 beyond them",
        f"--new-checkpoint {tmp_path / 'b.pth'}: 2 of the model's 2 keys, 0 beyond them",
    ]


def test_one_checkpoint_alone_is_said_to_pair_nothing(tmp_path: Path) -> None:
    legacy, new = checkpoint_values(options(saved(tmp_path / "a.pth", old_a=1.0, ema_x=2.0), None))
    fits, alone = remarks(legacy, new, shapes=(OLD, NEW))
    assert fits.endswith("a.pth: 1 of the model's 2 keys, 1 beyond them; missing: old.b; beyond: ema.x")
    assert "alone pairs nothing by value: name the same weights under the new engine's names, too" in alone


def test_a_value_of_another_shape_does_not_fit(tmp_path: Path) -> None:
    legacy, new = checkpoint_values(options(saved(tmp_path / "a.pth", old_a=1.0), None))
    assert "0 of the model's 1 keys, 0 beyond them; of another shape: old.a" in next(
        remarks(legacy, new, shapes=({"old.a": [5]}, {}))
    )


def test_the_new_checkpoint_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"^--new-checkpoint: values are compared with those of --checkpoint; name"):
        checkpoint_values(options(None, tmp_path / "b.pth"))


def test_without_checkpoints_there_is_nothing_to_say() -> None:
    assert not list(remarks(*checkpoint_values(options(None, None)), shapes=(OLD, NEW)))
