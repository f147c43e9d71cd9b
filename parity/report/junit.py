"""Results as JUnit XML: what CI servers show test by test."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree as XML

from parity.report.messages import failure_message
from parity.report.order import in_order, rerun
from parity.report.results import Report, StageResult

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def junit(report: Report) -> str:
    """Return a test suite a case and a test a check; one that could not be run is an error, a divergence a failure.

    A test's properties are ``case`` to ``device``, ``verdict``, ``budget_used`` and ``worst_tensor``.
    """
    suites: dict[str, list[StageResult]] = {}
    for result in in_order(report.results):
        suites.setdefault(result.case, []).append(result)
    root = XML.Element("testsuites", {"name": "parity", **_counts(report.results)})
    when = str(report.environment.get("when", ""))
    for case, results in suites.items():
        stamp = {"timestamp": _valid(when)} if when else {}
        suite = XML.SubElement(root, "testsuite", {"name": _valid(case), **_counts(results), **stamp})
        for result in results:
            _add_test(suite, result)
    XML.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + XML.tostring(root, encoding="unicode") + "\n"


def properties(result: StageResult) -> dict[str, str]:
    """Return what is told of a check beside its test, here and in pytest's own JUnit XML."""
    facts = {key: str(getattr(result, key)) for key in ("case", "record", "stage", "mode", "dtype", "device")}
    facts["verdict"] = result.verdict.value
    worst = next(iter(result.worst_tensors()), None)
    if worst is not None:
        facts["worst_tensor"] = worst.name
    if math.isfinite(result.used):
        facts["budget_used"] = f"{result.used:.4g}"
    return facts


def _add_test(suite: XML.Element, result: StageResult) -> None:
    name = "-".join((result.stage, result.mode, result.dtype, result.device))
    where = {"classname": _valid(f"{result.case}.{result.record}"), "name": _valid(name)}
    test = XML.SubElement(suite, "testcase", {**where, "time": f"{result.seconds:.3f}"})
    listed = XML.SubElement(test, "properties")
    for key, value in properties(result).items():
        XML.SubElement(listed, "property", {"name": key, "value": _valid(value)})
    if not result.verdict.passes:
        kind = "error" if result.error else "failure"
        headline = _valid(result.error or result.verdict.value)
        element = XML.SubElement(test, kind, {"message": headline, "type": result.verdict.value})
        element.text = _valid(failure_message([result], rerun=rerun(result)))


def _counts(results: Sequence[StageResult]) -> dict[str, str]:
    errors = sum(bool(result.error) for result in results)
    failures = sum(not result.verdict.passes for result in results) - errors
    seconds = sum(result.seconds for result in results)
    counts = {"tests": len(results), "failures": failures, "errors": errors, "skipped": 0}
    return {**{key: str(count) for key, count in counts.items()}, "time": f"{seconds:.3f}"}


def _valid(text: str) -> str:
    """Return the text without what XML cannot hold; the rest is escaped when it is written."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
