"""The published schema of ``results.json``: derived from the types that are written, so that it cannot fall behind."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from parity.compare.verdicts import Verdict
from parity.report.results import SCHEMA, StageResult

_ADDRESS = "https://json-schema.org/draft/2020-12/schema"
_NOT_FINITE = ["inf", "-inf", "nan"]
_PROVENANCE = {
    "when": "when the run began: ISO 8601, UTC (from schema 2)",
    "commit": "the git commit it was run from, + behind it where tracked files were changed (from schema 2)",
    "parity": "the version of parity",
    "device": "where the new engine ran",
    "driver": "the CUDA driver's version, on a CUDA device (from schema 2)",
    "series": "PARITY_SERIES: the history compares runs of one device and series",
}


def results_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of what ``parity check --json`` writes.

    Readers should let unknown properties pass: a later version may add some without a new schema number.
    """
    (stage,), definitions = msgspec.json.schema_components([StageResult], ref_template="#/$defs/{name}")
    written = definitions[StageResult.__name__]
    written["properties"]["verdict"] = {"$ref": f"#/$defs/{Verdict.__name__}"}
    written["required"] += ["verdict"]
    for definition in definitions.values():
        if "properties" in definition:
            definition["properties"] = {name: _as_written(value) for name, value in definition["properties"].items()}
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return {
        "$schema": _ADDRESS,
        "title": "results of parity check",
        "type": "object",
        "required": ["schema", "environment", "results"],
        "properties": {
            "schema": {"const": SCHEMA},
            "environment": _environment(),
            "seconds": {"type": "number", "description": "wall time of the run, 0 where unknown"},
            "results": {"type": "array", "items": stage},
        },
        "$defs": definitions,
    }


def schema_text() -> str:
    """Return the schema as it is published."""
    return json.dumps(results_schema(), indent=2) + "\n"


def _environment() -> dict[str, Any]:
    versions = {"type": "object", "additionalProperties": {"type": "string"}}
    facts: dict[str, Any] = {key: {"type": "string", "description": text} for key, text in _PROVENANCE.items()}
    records = {"type": "object", "description": "CASE/RECORD to the versions that it was frozen with, by engine"}
    new = {**versions, "description": "the new engine's versions"}
    texts = {"type": "array", "items": {"type": "string"}}
    each = {"kind": {"type": "string"}, "stages": texts, "modes": texts, "dtypes": texts}
    checks = {
        "type": "object",
        "additionalProperties": {"type": "object", "properties": each},
        "description": "CASE/RECORD to the checks that it is for, and to what it is of: inference, training,"
        " trajectory or recipe",
    }
    settings = {
        "type": "object",
        "additionalProperties": {"type": ["boolean", "integer", "string", "null"]},
        "description": "numerical settings of the new engine's run as they were read back; null for one that its torch"
        " does not have",
    }
    limits = {
        "type": "object",
        "description": "case to what its records show of its top-k, thresholds and limits: rows, and problems",
    }
    manifests = {
        "type": "object",
        "description": "CASE/RECORD to the SHA-256 of its manifest, and whether records.sha256 lists it",
    }
    objects = {"new": new, "settings": settings, "records": records, "manifests": manifests, "checks": checks}
    objects["limits"] = limits
    return {"type": "object", "properties": {**facts, **objects}}


def _as_written(value: dict[str, Any]) -> dict[str, Any]:
    """Let a figure be one of the strings that stand for what JSON has no number for."""
    kinds = [kind.get("type") for kind in value.get("anyOf", [value])]
    if "number" not in kinds:
        return value
    finite = [{"type": kind} for kind in kinds]
    kept = {key: inner for key, inner in value.items() if key not in ("type", "anyOf")}
    return {**kept, "anyOf": [*finite, {"enum": _NOT_FINITE}]}
