"""When, from which commit and under which driver a run was made: what the history marks its changes by."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from parity import __version__

_PATIENCE = 60.0  # seconds: a driver that hangs must not hold up the run


def provenance(device: str, *, folder: Path | None = None) -> dict[str, str]:
    """Return what is known of a run that begins now, each as text.

    Args:
        device: the new engine's; the driver is told for a CUDA device only.
        folder: where the work is (default: the current folder); its git commit is told, with ``+`` behind it where
            tracked files were changed since. Outside a repository there is none.

    Returns:
        ``when`` (ISO 8601, UTC), ``parity``, ``device``, and, where they are known, ``commit``, ``driver`` and
        ``series`` (``PARITY_SERIES``: the runs that the history compares with one another).
    """
    facts = {
        "when": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "parity": __version__,
        "device": device,
        "commit": _commit(folder or Path()),
        "driver": _driver() if device.startswith("cuda") else "",
        "series": os.environ.get("PARITY_SERIES", ""),
    }
    return {key: value for key, value in facts.items() if value}


def _commit(folder: Path) -> str:
    commit = _said("git", "-C", str(folder), "rev-parse", "--verify", "--short=12", "HEAD")
    changed = commit and _said("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else commit


def _driver() -> str:
    said = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return said.splitlines()[0] if said else ""


def _said(*command: str) -> str:
    """Return what a program prints, or nothing where it is lacking, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
