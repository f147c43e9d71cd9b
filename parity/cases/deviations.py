"""The kinds of known differences that there are: each says where it has to show, and what it explains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, Type

from parity.cases.base import GRADIENTS, OPTIMIZER_STEP, TRAIN_PIPELINE, Deviation, Seen

NAN = 1  # in a tensor ``name.nonfinite``, see ``engines.training.finite``


@dataclass(frozen=True, init=False)
class AbsentMask(Deviation):
    """The new engine passes ``None`` for this mask where nothing is masked."""

    kind = "none_if_all_false"

    def concerns(self, seen: Seen) -> bool:
        return seen.largest == 0.0 and not bool(seen.expected.any())

    def explains(self, seen: Seen) -> bool:
        return seen.actual is None and self.concerns(seen)

    def corrected(self, seen: Seen) -> Any:
        return seen.expected.new_zeros(seen.shape)

    def takes_away(self, value: Any) -> bool:
        return not bool(value.any())


@dataclass(frozen=True, init=False)
class PaddedToSquare(Deviation):
    """The new engine counts the padding to a square as image: this shape (B, 2) is (s, s), ``s`` the longer side."""

    kind = "padded_to_square"

    def concerns(self, seen: Seen) -> bool:
        return bool((seen.expected != self._squares(seen)).any())

    def explains(self, seen: Seen) -> bool:
        alike = seen.actual is not None and seen.actual.shape == seen.expected.shape
        return alike and seen.actual.dtype == seen.expected.dtype and bool((seen.actual == self._squares(seen)).all())

    @staticmethod
    def _squares(seen: Seen) -> Any:
        return seen.expected.amax(1, keepdim=True).expand_as(seen.expected)


@dataclass(frozen=True, init=False)
class SquareImages(Deviation):
    """Square images are batched with those of the other orientation: with which ones (I,), true as the first one."""

    kind = "square_images"

    def matches(self, stage: str, name: str) -> bool:
        return stage == TRAIN_PIPELINE and name == self.tensor

    def concerns(self, seen: Seen) -> bool:
        square = self._square(seen)
        return bool(square.any()) and not bool(square[0])  # if the first one is square, all others change sides

    def explains(self, seen: Seen) -> bool:
        alike = seen.actual is not None and seen.actual.shape == seen.expected.shape
        if not alike or seen.actual.dtype != seen.expected.dtype:
            return False
        return not bool(((seen.actual != seen.expected) & ~self._square(seen)).any())

    @staticmethod
    def _square(seen: Seen) -> Any:
        """Return whether each image is square, bool (I,)."""
        text = seen.truth[f"{TRAIN_PIPELINE}/annotations"].numpy().tobytes()
        square = {image["id"]: image["height"] == image["width"] for image in json.loads(text)["images"]}
        ids = seen.truth[f"{TRAIN_PIPELINE}/image_ids"]
        return ids.new_tensor([square[number] for number in ids.tolist()]).bool()


@dataclass(frozen=True, init=False)
class NanNorm(Deviation):
    """A gradient norm that is NaN makes the new engine's clipping spread NaN over all that is trained.

    It explains just this: both engines' gradient norm is NaN, and the new one's step has made a NaN of every number of
    every trained parameter. All else, frozen parameters and buffers and what the legacy engine made a NaN of, too, is
    compared as ever.
    """

    kind = "nan_norm"

    def matches(self, stage: str, name: str) -> bool:
        return stage == OPTIMIZER_STEP and name in (self.tensor, f"{self.tensor}.nonfinite")

    def concerns(self, seen: Seen) -> bool:
        key = f"{GRADIENTS}/norm.nonfinite"
        return key in seen.truth and int(seen.truth[key]) == NAN

    def explains(self, seen: Seen) -> bool:
        norm, marks = (seen.run.tensors.get(name) for name in ("norm.nonfinite", f"{self.tensor}.nonfinite"))
        if not self.concerns(seen) or norm is None or int(norm) != NAN or marks is None or seen.actual is None:
            return False
        key = f"{OPTIMIZER_STEP}/{self.tensor}"
        rows, expected = seen.run.rows.get(self.tensor, ()), seen.truth[key]
        if list(rows) != seen.truth.record.rows(key) or not marks.shape == seen.actual.shape == expected.shape:
            return False
        numbers = self._trained(seen, marks) & ((expected != 0.0) | (seen.truth[f"{key}.nonfinite"] != 0))
        return bool(numbers.any()) and bool((marks[numbers] == NAN).all())

    def corrected(self, seen: Seen) -> Any:
        marks = seen.run.tensors[f"{self.tensor}.nonfinite"]
        legacy = seen.truth[f"{OPTIMIZER_STEP}/{self.tensor}.nonfinite"]
        spread = self._trained(seen, marks) & (marks == NAN) & (legacy == 0)
        # Where the legacy engine has a number, its mark is 0.
        return seen.expected.to(seen.actual.dtype).where(spread, seen.actual)

    def _trained(self, seen: Seen, marks: Any) -> Any:
        stepped = set(seen.run.rows.get(GRADIENTS, ()))
        return marks.new_tensor([row in stepped for row in seen.run.rows[self.tensor]]).bool()[:, None]


@dataclass(frozen=True, init=False)
class Lifted(Deviation):
    """An option of the case (``Case.options``) takes the difference away, so that the rest of the stage can be proven.

    ``tensor`` names the stage, whose result says so. Where it has to show depends on the option: a kind of its own
    says it; this one shows where it shows.
    """

    kind = "lifted"

    def matches(self, stage: str, name: str) -> bool:
        return False

    def concerns(self, seen: Seen) -> bool:
        return False

    def explains(self, seen: Seen) -> bool:
        return False


@dataclass(frozen=True, init=False)
class DegenerateBoxes(Lifted):
    """Boxes without area are dropped before the NMS in one engine only: it shows where the truth's NMS met any."""

    kind = "lifted_degenerate_boxes"

    def concerns(self, seen: Seen) -> bool:
        decisions = seen.truth.record.manifest["decisions"]
        keys = [f"{name}/boxes" for name, described in decisions.items() if described["stage"] == seen.stage]
        boxes = [seen.truth[key] for key in keys if key in seen.truth]
        return any(bool((each[..., 2:] <= each[..., :2]).any()) for each in boxes)


_CLASSES = (AbsentMask, PaddedToSquare, SquareImages, NanNorm, Lifted, DegenerateBoxes)
KINDS: Dict[str, Type[Deviation]] = {each.kind: each for each in _CLASSES}
