"""What came of the mutants, as plain data, and what it adds up to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parity.errors import DAMAGE, ParityError
from parity.mutants.bench import Catch
from parity.mutants.practice import Practice
from parity.mutants.quiet import Quiet

SCHEMA = 1


@dataclass(frozen=True)
class Outcome:
    """One mutant in one case.

    Attributes:
        catch: how the harness caught it; ``None`` if it survived.
        practice: what people would have seen; ``None`` where that was not asked for.
        seconds: processor time of both, all threads together.
        explained: why it survives, where that is known.
        error: why it could not be judged; it is neither caught nor a survivor then.
    """

    mutant: str
    case: str
    stage: str
    why: str
    catch: Catch | None
    practice: Practice | None = None
    seconds: float = 0.0
    explained: str = ""
    error: str = ""

    @property
    def right_stage(self) -> bool:
        """Whether the first diverging stage is the one that holds the bug."""
        return self.catch is not None and self.catch.stage == self.stage


@dataclass(frozen=True)
class MutationReport:
    """All outcomes of one run.

    Attributes:
        clean: case -> what people see of the unchanged engine.
        seconds: wall-clock time of the whole run.
    """

    environment: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    clean: Mapping[str, Practice] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def survivors(self) -> list[Outcome]:
        """The outcomes that no check noticed."""
        return [outcome for outcome in self.outcomes if outcome.catch is None and not outcome.error]

    @property
    def unjudged(self) -> list[Outcome]:
        """The outcomes of which nothing is known, each with its ``error``."""
        return [outcome for outcome in self.outcomes if outcome.error]

    @property
    def unexplained(self) -> list[Outcome]:
        """The survivors that are not explained."""
        return [outcome for outcome in self.survivors if not outcome.explained]

    def misplaced(self) -> list[Outcome]:
        """Return what was caught in another stage than the one that holds the bug."""
        return [outcome for outcome in self.outcomes if outcome.catch is not None and not outcome.right_stage]


def to_json(report: MutationReport, quiet: Sequence[Quiet] = ()) -> str:
    """Return the report and the benign changes as JSON; infinite figures as the string ``"inf"``."""
    whole = {
        "schema": SCHEMA,
        "environment": dict(report.environment),
        "seconds": report.seconds,
        "clean": {case: _plain(practice) for case, practice in report.clean.items()},
        "benign": [_plain(change) for change in quiet],
        "outcomes": [{**_plain(outcome), "right_stage": outcome.right_stage} for outcome in report.outcomes],
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = _finite(asdict(value))
    return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_outcomes(paths: Sequence[Path]) -> MutationReport:
    """Return the report in one file, or in several as one; of a mutant that several hold, the last counts.

    Raises:
        ParityError: a file is missing, damaged, or of another schema.
    """
    reports = [_read(path) for path in paths]
    outcomes = {(outcome.mutant, outcome.case): outcome for report in reports for outcome in report.outcomes}
    return MutationReport(
        reports[0].environment,
        list(outcomes.values()),
        {case: practice for report in reports for case, practice in report.clean.items()},
        sum(report.seconds for report in reports),
    )


def read_quiet(paths: Sequence[Path]) -> list[Quiet]:
    """Return the benign changes in several files; of one that several hold, the last counts."""
    changes = [change for path in paths for change in _read_quiet(path)]
    return list({(change.change, change.case): change for change in changes}.values())


def _read_quiet(path: Path) -> list[Quiet]:
    try:
        return [
            Quiet(**{**plain, "records": tuple(plain["records"]), "alarm": _catch(plain["alarm"])})
            for plain in json.loads(path.read_text()).get("benign", ())
        ]
    except DAMAGE as error:
        raise ParityError(f"{path} holds no outcomes ({error}): `parity mutate --json FILE` writes them") from None


def _catch(plain: Mapping[str, Any] | None) -> Catch | None:
    return None if plain is None else Catch(**plain)


def _read(path: Path) -> MutationReport:
    try:
        plain = json.loads(path.read_text())
        if plain["schema"] != SCHEMA:
            raise ParityError(f"{path} has schema {plain['schema']!r}, this version reads {SCHEMA}: run it again")
        clean = {case: _practice(practice) for case, practice in plain["clean"].items()}
        outcomes = [_outcome(outcome) for outcome in plain["outcomes"]]
        return MutationReport(plain["environment"], outcomes, clean, float(plain["seconds"]))
    except DAMAGE as error:
        raise ParityError(f"{path} holds no outcomes ({error}): `parity mutate --json FILE` writes them") from None


def _practice(plain: Mapping[str, Any]) -> Practice:
    return Practice(**{**plain, "moved": float(plain["moved"])})


def _outcome(plain: Mapping[str, Any]) -> Outcome:
    known = {key: value for key, value in plain.items() if key != "right_stage"}
    known["catch"] = _catch(known["catch"])
    known["practice"] = None if known["practice"] is None else _practice(known["practice"])
    return Outcome(**known)


def merged(reports: Sequence[MutationReport], seconds: float) -> MutationReport:
    """Return several cases' reports as one that took ``seconds``."""
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    clean = {case: practice for report in reports for case, practice in report.clean.items()}
    environment = next((report.environment for report in reports if report.environment), {})
    return MutationReport(environment, outcomes, clean, seconds)
