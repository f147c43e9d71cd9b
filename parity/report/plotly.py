"""Plotly's script, written once beside the pages that draw with it: they need no network."""

from __future__ import annotations

from pathlib import Path

from parity.report.files import write_text

SCRIPT = "plotly.min.js"


def plotly_script(folder: Path) -> Path:
    """Write the installed Plotly's script into ``folder``, unless it is there already; return its path.

    A page beside it loads it by ``<script src="plotly.min.js">``. One of another version is replaced.

    Raises:
        ParityError: it cannot be written.
    """
    from plotly.offline import get_plotlyjs

    path, script = folder / SCRIPT, get_plotlyjs()
    if path.is_file() and path.stat().st_size == len(script.encode()) and path.read_text("utf-8") == script:
        return path
    return write_text(path, script)
