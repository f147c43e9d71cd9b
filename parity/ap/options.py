"""The words of ``parity ap``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_ap(commands: Any) -> None:
    """Add ``ap``."""
    ap = commands.add_parser("ap", help="full-val AP of both engines, and their detections matched")
    ap.add_argument("cases", nargs="*", metavar="CASE", help="default: all that have what they need")
    ap.add_argument("--gpus", type=int, default=0, metavar="N", help="a process on each of N GPUs (default: the CPU)")
    ap.add_argument("--processes", type=int, default=1, metavar="N", help="how many on the CPU (default: 1)")
    ap.add_argument("--coco-root", type=Path, metavar="DIR", help="default: data/coco")
    ap.add_argument("--checkpoint", action="append", default=[], metavar="CASE=FILE", help="the legacy engine's .pth")
    ap.add_argument("--settings", type=Path, metavar="FILE", help="default: full_ap.toml")
    ap.add_argument("--legacy-root", metavar="DIR", help="the DDQ checkout")
    ap.add_argument("--legacy-python", metavar="PY", help="the legacy interpreter (default: that of `parity env`)")
    ap.add_argument("--ap-dir", type=Path, metavar="DIR", help="where predictions are kept (default: reports/ap)")
    ap.add_argument("--report-dir", type=Path, metavar="DIR", help="write ap.html and ap.json there")
    ap.add_argument("--require-data", action="store_true", help="a case that lacks something fails")
    ap.add_argument("--freeze", action="store_true", help="keep the legacy predictions of a small case in fixtures/ap")
    ap.add_argument("--time-limit", type=float, metavar="SECONDS", help="for one request to the legacy engine")
    ap.set_defaults(run=_ap)


def _ap(options: argparse.Namespace) -> int:
    from parity.ap.command import ap

    return ap(options)
