"""The page of a run: one HTML file beside Plotly's script that needs no network, and the same results as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from parity.compare.verdicts import Verdict
from parity.errors import ParityError
from parity.report.ap_section import ap_view, read_shown
from parity.report.checks import Check, checks_in_order, missing_checks
from parity.report.curves import Curve, curves_view
from parity.report.engine_table import engines
from parity.report.figures import duration, index, number, tensor_name, values, word
from parity.report.files import script_and_hash, templates, write_text, write_together, writing_into
from parity.report.limits import limits_view
from parity.report.located import Located, read_located
from parity.report.order import rerun, stage_order, unique
from parity.report.plotly import plotly_script
from parity.report.results import KNOWN_DEVIATION, RESULTS, Report, to_json
from parity.report.run_data import run_data
from parity.report.run_matrix import run_matrix

PAGE = "index.html"
SCRIPTS = (
    *("base.js", "figures.js", "tensor.js", "chain.js"),
    *("check.js", "ties.js", "training.js", "page.js"),
)

Shown = Sequence[Mapping[str, Any]]


def write_report(
    report: Report,
    folder: Path,
    *,
    curves: Sequence[Curve] = (),
    run_folder: Path | None = None,
    history: bool = False,
    before: Callable[[], None] | None = None,
) -> Path:
    """Write ``results.json``, ``index.html`` and the plots' script into ``folder``; return the page's path.

    Each file is written beside its place and then renamed, so that none is ever half there, and the page is never that
    of other results: it goes before they are replaced. What ``parity locate
    --json`` and ``parity ap`` left in the run's folder (``folder``, if none is given) is shown with it;
    with ``history``, the page links to that of the folder above. ``before`` is called before anything is replaced.

    Raises:
        ParityError: a file cannot be written, or what those left is damaged.
    """
    run_folder = run_folder or folder
    plain = to_json(report)
    with writing_into(folder):
        if before is not None:
            before()
        try:
            located, ap = read_located(run_folder), read_shown(run_folder)
            page = render(report, curves=curves, located=located, ap=ap, history=history)
            plotly_script(folder)
        except ParityError:
            write_together(folder, RESULTS, plain, PAGE, None)
            raise
        return write_together(folder, RESULTS, plain, PAGE, page)


def write_curves(curves: Sequence[Curve], folder: Path) -> Path:
    """Write ``curves.html``, a page of loss curves alone, into ``folder``; return its path."""
    return write_text(
        folder / "curves.html", _environment().get_template("curves_page.html.j2").render(curves_view(curves))
    )


def render(
    report: Report,
    *,
    curves: Sequence[Curve] = (),
    located: Located | None = None,
    ap: Shown = (),
    history: bool = False,
) -> str:
    """Return the page as HTML. All names and notes are escaped; nothing comes from a network."""
    jinja = _environment()
    view = {**_view(report, located or {}), **curves_view(curves), **_scripts(), **ap_view(ap), "history": history}
    return jinja.get_template("report.html.j2").render(view)


def _environment() -> Environment:
    return templates(number, index, values, word, duration, tensor_name, breakable)


def breakable(name: str) -> Markup:
    """Return a name, escaped, that may be broken behind its underscores.

    >>> breakable("ddq_<b>")
    Markup('ddq_<wbr>&lt;b&gt;')
    """
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _scripts() -> dict[str, Any]:
    """Return the page's own script, and the hash by which the page's policy allows it and no other."""
    folder = files("parity.report") / "templates"
    parts = "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}\n}})();'
    return dict(zip(("script", "script_hash"), script_and_hash(script), strict=True))


def _view(report: Report, located: Located) -> dict[str, Any]:
    """Return everything that the template asks for."""
    stages = stage_order(report.results)
    checks = checks_in_order(report)
    failing = sorted(
        (check for check in checks if not check.passes),
        key=lambda check: check.result.verdict is Verdict.INCONCLUSIVE,  # what diverged comes first
    )
    matrix = run_matrix(checks, stages)
    return {
        "verdict": report.verdict,
        "checks": checks,
        "failing": failing,
        "first": failing[0] if failing else None,
        "rerun": rerun(failing[0].result) if failing else "",
        "seconds": report.seconds or sum(check.result.seconds for check in checks),
        "stages": stages,
        "matrix": matrix,
        "lacking": missing_checks(checks),
        "cases": [lines.case for lines in matrix],
        "records": unique(f"{check.result.case}/{check.result.record}" for check in checks),
        "dtypes": unique(check.result.dtype for check in checks),
        "modes": unique(check.result.mode for check in checks),
        "devices": unique(check.result.device for check in checks),
        "flips": sum(decision.flips for check in checks for decision in check.result.decisions),
        "engines": engines(report.environment),
        "about": {key: str(report.environment.get(key, "")) for key in ("parity", "when", "commit")},
        "causes": _causes(checks),
        "deviations": _deviations(checks),
        "limits": limits_view(report.environment),
        "data": run_data(checks, located),
    }


def _causes(checks: Sequence[Check]) -> list[tuple[str, str, list[str]]]:
    """Return (stage, note, records) of what explains a difference.

    Known deviations of tensors have a section of their own.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        known = {f"{it.name}: {KNOWN_DEVIATION}: {it.deviation}" for it in check.result.tensors if it.deviation}
        for note in check.result.notes:
            if note in known:
                continue
            found.setdefault((check.result.stage, note), []).append(check.result.record)
    return [(stage, note, unique(records)) for (stage, note), records in found.items()]


def _deviations(checks: Sequence[Check]) -> list[tuple[str, str, list[str], int]]:
    """Return (tensor, reason, where, how often) of what is known to differ and does no harm."""
    found: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        for tensor in check.result.tensors:
            if tensor.deviation:
                found.setdefault((tensor.name, tensor.deviation), []).append(
                    f"{check.result.record}, {check.result.stage}"
                )
    return [(name, reason, unique(where), len(where)) for (name, reason), where in found.items()]
