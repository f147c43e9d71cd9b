"""The ledger of a conversion: where every key came from and where it went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from parity.errors import DAMAGE, ParityError
from parity.records.store import sha256

SCHEMA = 1


@dataclass(frozen=True)
class Key:
    """One entry of a state dict; ``sha256`` is that of its bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True)
class Move:
    """What one rule did: the keys it took and the keys it gave.

    A dropped key has no target; one that was put back has no source.
    """

    rule: str
    sources: tuple[Key, ...]
    targets: tuple[Key, ...]


@dataclass(frozen=True)
class Ledger:
    """All moves of a conversion; every source key and every target key stands in exactly one.

    Raises:
        ParityError: a key stands in two moves.
    """

    moves: tuple[Move, ...]

    def __post_init__(self) -> None:
        for end, keys in (("source", self.sources()), ("target", self.targets())):
            twice = sorted(name for name, count in Counter(key.name for key in keys).items() if count > 1)
            if twice:
                raise ParityError(f"ledger: {len(twice)} {end} keys are claimed twice {twice[:3]}")

    def sources(self) -> Iterator[Key]:
        """Yield every source key."""
        return (key for move in self.moves for key in move.sources)

    def targets(self) -> Iterator[Key]:
        """Yield every target key."""
        return (key for move in self.moves for key in move.targets)

    def rules(self) -> Counter[str]:
        """Return how many keys each rule took or, where it took none, gave."""
        counts: Counter[str] = Counter()
        for move in self.moves:
            counts[move.rule] += len(move.sources) or len(move.targets)
        return counts

    def to_json(self) -> str:
        """Return the ledger as JSON."""
        moves = [asdict(move) for move in self.moves]
        return json.dumps({"schema": SCHEMA, "moves": moves}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "ledger") -> Ledger:
        """Return the ledger written by ``to_json``.

        Raises:
            ParityError: it is cut short, of another schema, or names a key twice; ``where`` is named.
        """
        try:
            plain = json.loads(text)
            if plain["schema"] != SCHEMA:
                raise ParityError(f"{where} has schema {plain['schema']!r}, this version reads {SCHEMA}")
            return cls(tuple(_move(move) for move in plain["moves"]))
        except DAMAGE as error:
            raise ParityError(f"{where} is no ledger ({type(error).__name__}: {error})") from None


def _move(plain: Mapping[str, Any]) -> Move:
    sources, targets = (
        tuple(Key(**{**key, "shape": tuple(key["shape"])}) for key in plain[end]) for end in ("sources", "targets")
    )
    return Move(str(plain["rule"]), sources, targets)


class Hashes:
    """Describes tensors as keys, hashing each tensor object once: most keep their values and only change names."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, str]] = {}

    def key(self, name: str, tensor: Tensor) -> Key:
        """Return the key of a named tensor."""
        if id(tensor) not in self._known:
            self._known[id(tensor)] = (tensor, sha256(tensor))  # the tensor too, so that its id stays its own
        return Key(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), self._known[id(tensor)][1])

    def keys(self, names: Iterable[str], state: Mapping[str, Tensor]) -> tuple[Key, ...]:
        """Return the keys of several."""
        return tuple(self.key(name, state[name]) for name in names)
