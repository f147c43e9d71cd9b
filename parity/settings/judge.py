"""Judge the settings of two configs: every one paired and equal, known to differ, or not compared for a reason."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parity.cases.base import Case
from parity.cases.other_settings import ABSENT, OtherSetting
from parity.compare.verdicts import Verdict
from parity.errors import ParityError
from parity.report.results import TensorResult
from parity.settings import shared
from parity.settings.mmdet2 import MMDET2
from parity.settings.mmdet3 import MMDET3
from parity.settings.words import Dialect, Reading, Setting, Unread, read

DIALECTS: Mapping[str, Dialect] = {"mmdet2": MMDET2, "mmdet3": MMDET3}
KIND = "setting"
IN_FORCE, AS_BUILT = "in_force.", "as built"
NOT_SAID = Setting(ABSENT)


@dataclass(frozen=True)
class Line:
    """One line of the table: a setting in both configs, or a leaf that is not compared.

    Attributes:
        expected, actual: in the legacy config and in the new one; ``None`` where a leaf is not compared.
        verdict: ``None`` for one that is not compared; ``note`` says why, or what is known of a difference.
    """

    name: str
    expected: Setting | None
    actual: Setting | None
    verdict: Verdict | None
    note: str = ""


@dataclass(frozen=True)
class Texts:
    """What an engine says of its training: see ``engines.training_setup``."""

    dialect: str
    config: str
    in_force: str


def table(case: Case, actual: Texts, expected: Texts) -> list[Line]:
    """Return every setting of both configs, each leaf of them in one line.

    Raises:
        ParityError: an engine writes its configs in words that no table here reads.
    """
    ours, theirs = _reading(case, actual), _reading(case, expected)
    renamed = {_renamed(case, name): setting for name, setting in theirs.settings.items()}
    others = dict.fromkeys(case.other_settings, 0)
    lines = []
    for name in sorted(renamed.keys() | ours.settings.keys()):
        line = _line(name, ours.settings.get(name, NOT_SAID), renamed.get(name, NOT_SAID))
        known = next((other for other in others if _explains(other, line)), None)
        if known is not None and line.verdict is not Verdict.EQUAL:
            others[known] += 1
            line = Line(
                name, line.expected, line.actual, Verdict.EQUAL, f"known deviation: {known.reason} ({known.link})"
            )
        lines.append(line)
    differing = [line.name for line in lines if line.verdict is not Verdict.EQUAL]
    lines += [
        Line(other.name, None, None, Verdict.DIVERGED, "this known difference explains nothing: take it out")
        for other, count in others.items()
        if not count and not any(re.fullmatch(other.name, name) for name in differing)
    ]
    for reading, verdict, whose in ((theirs, Verdict.MISSING, "legacy"), (ours, Verdict.EXTRA, "new")):
        lines += [Line(key, None, None, verdict, f"in no row of the table ({whose} config)") for key in reading.unknown]
        lines += list(_unread(case, reading))
    return lines


def results(lines: list[Line]) -> tuple[tuple[TensorResult, ...], tuple[str, ...]]:
    """Return the lines as results, one for all that are equal, and what is known of differences as notes."""
    equal = [line for line in lines if line.verdict is Verdict.EQUAL]
    unread = sum(line.verdict is None for line in lines)
    note = f"{len(equal)} settings are equal; {unread} leaves are not compared here, each for a reason of its row"
    found = [TensorResult(KIND, Verdict.EQUAL if equal else Verdict.MISSING, (len(equal),), kind=KIND, note=note)]
    found += [_result(line) for line in lines if line.verdict not in (None, Verdict.EQUAL)]
    return tuple(found), tuple(f"{line.name}: {line.note}" for line in equal if line.note)


def _reading(case: Case, texts: Texts) -> Reading:
    if texts.dialect not in DIALECTS:
        raise ParityError(f"no table of settings reads the configs of {texts.dialect!r}: add one to parity.settings")
    more = [Unread(keys, reason) for keys, reason in case.unread_settings.items()]
    reading = read(json.loads(texts.config), DIALECTS[texts.dialect], more)
    in_force = json.loads(texts.in_force)
    in_force["hooks"] = [name for name in in_force["hooks"] if name not in shared.QUIET_HOOKS | shared.OWN_HOOKS]
    reading.settings.update({IN_FORCE + name: Setting(value, (AS_BUILT,)) for name, value in in_force.items()})
    return reading


def _renamed(case: Case, name: str) -> str:
    for legacy, new in case.setting_names.items():
        if re.fullmatch(legacy, name):
            return re.sub(legacy, new, name, count=1)
    return name


def _line(name: str, actual: Setting, expected: Setting) -> Line:
    if _same(actual.value, expected.value):
        return Line(name, expected, actual, Verdict.EQUAL)
    verdict = {id(actual): Verdict.MISSING, id(expected): Verdict.EXTRA}.get(id(NOT_SAID), Verdict.DIVERGED)
    note = f"{_said(actual)}, expected {_said(expected)}"
    return Line(name, expected, actual, verdict, note)


def _said(setting: Setting) -> str:
    if setting is NOT_SAID:
        return "not said"
    keys = ", ".join(setting.keys[:3]) + (", …" if len(setting.keys) > 3 else "")
    return f"{json.dumps(setting.value)} ({keys or 'by default'})"


def _same(actual: Any, expected: Any) -> bool:
    """Whether two values are the same, 1 and 1.0 alike and 1 and true not.

    >>> _same([1, {"a": 2.0}], [1.0, {"a": 2}]), _same(1, True)
    (True, False)
    """
    if isinstance(actual, bool) or isinstance(expected, bool):
        return actual is expected
    if isinstance(actual, dict) and isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(_same(actual[key], expected[key]) for key in actual)
    if isinstance(actual, list) and isinstance(expected, list):
        return len(actual) == len(expected) and all(map(_same, actual, expected))
    return bool(actual == expected)


def _explains(other: OtherSetting, line: Line) -> bool:
    actual, expected = (setting or NOT_SAID for setting in (line.actual, line.expected))
    values = _same(actual.value, other.new) and _same(expected.value, other.legacy)
    return values and re.fullmatch(other.name, line.name) is not None


def _unread(case: Case, reading: Reading) -> Iterator[Line]:
    for key, row in reading.unread.items():
        if row.stage and row.stage not in case.recipe_stages:
            note = f"it is to be compared in stage {row.stage}, which {case.id} does not have"
            yield Line(key, None, None, Verdict.MISSING, note)
        else:
            yield Line(key, None, None, None, f"{row.reason}: stage {row.stage}" if row.stage else row.reason)


def _result(line: Line) -> TensorResult:
    assert line.verdict is not None
    return TensorResult(line.name, line.verdict, minimum_budget=math.inf, kind=KIND, note=line.note)
