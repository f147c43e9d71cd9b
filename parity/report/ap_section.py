"""The section of AP: "does it matter?" It is shown on a page of its own, and within that of a run beside which it lies.

``ap.json`` holds all that is shown, so that the page of a run needs neither predictions nor images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity import __version__
from parity.ap.evaluate import FIGURES
from parity.ap.match import LEAST_IOU, MOST_SCORE_DIFFERENCE, RELABELLED, SAME, ImageMatch, Tally
from parity.ap.pictures import side_by_side
from parity.ap.result import ApResult
from parity.coco.categories import NAMES
from parity.errors import DAMAGE, ParityError
from parity.report.files import templates, write_together, writing_into

CLASSES_SHOWN, IMAGES_SHOWN = 12, 50
RESULTS = "ap.json"


def write_page(results: Sequence[ApResult], folder: Path) -> Path:
    """Write ``ap.html``, which needs nothing else, and ``ap.json``; return the page's path.

    Raises:
        ParityError: a file cannot be written.
    """
    plain = [{**to_json(result), "shown": shown(result)} for result in results]
    view = ap_view([each["shown"] for each in plain])
    passes = all(result.passes for result in results)
    page = templates().get_template("ap.html.j2").render({**view, "passes": passes, "parity_version": __version__})
    with writing_into(folder):
        return write_together(folder, RESULTS, json.dumps(plain, indent=1) + "\n", "ap.html", page)


def read_shown(folder: Path) -> list[Mapping[str, Any]]:
    """Return what is shown of each case, from the ``ap.json`` in a folder; nothing where there is none.

    Raises:
        ParityError: it is damaged, or of a version that wrote less.
    """
    path = folder / RESULTS
    if not path.exists():
        return []
    try:
        found = [each["shown"] for each in json.loads(path.read_text("utf-8"))]
        if any(each.keys() != shown_keys() for each in found):
            raise ValueError("not what this version shows")
    except DAMAGE as error:
        raise ParityError(
            f"{path} cannot be shown ({error}): `parity ap --report-dir` writes it; remove it to go without"
        ) from None
    return found


def ap_view(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the template ``ap_section.html.j2`` asks for."""
    return {"results": cases, "least_iou": LEAST_IOU, "most_score_difference": MOST_SCORE_DIFFERENCE}


def shown_keys() -> set[str]:
    """Return the names of what is shown of a case."""
    return {*_COUNTS, "figures", "rows", "sizes", "classes", "pictures"}


_COUNTS = (
    *("case", "data", "passes", "problems", "notes", "reported"),
    *("images", "matched", "most", "share", "relabelled", "greatest"),
)


def shown(result: ApResult) -> dict[str, Any]:
    """Return what the section shows of a case, as texts and lists of them."""
    matching, total = result.matching, result.matching.total
    values = (
        *(result.case, result.data, result.passes, result.problems, list(result.notes)),
        "" if result.reported is None else f"{result.reported:.1f}",
        *(len(matching.images), total.matched, max(total.legacy, total.new), total.percent, matching.relabelled),
        f"{matching.greatest_offset:.2g}",
    )
    sizes = [[size, tally.legacy, tally.new, tally.percent] for size, tally in matching.sizes.items()]
    return {
        **dict(zip(_COUNTS, values, strict=True)),
        "figures": list(FIGURES),
        "rows": [
            ["legacy", [figure(result.legacy.figures[name]) for name in FIGURES]],
            ["new", [figure(result.new.figures[name]) for name in FIGURES]],
            ["new \N{MINUS SIGN} legacy", [signed(result.difference(name)) for name in FIGURES]],
        ],
        "sizes": sizes,
        "classes": _classes(result),
        "pictures": [list(each) for each in side_by_side(result, IMAGES_SHOWN)],
    }


def _classes(result: ApResult) -> list[list[Any]]:
    """Return (class, AP of both engines, legacy detections, share matched) of the classes that differ most."""
    rows = []
    for label, tally in result.matching.classes.items():
        name = NAMES[label]
        legacy, new = (engine.classes.get(name, -1.0) for engine in (result.legacy, result.new))
        rows.append(((tally.share, -abs(new - legacy), -tally.legacy), name, legacy, new, tally))
    rows.sort(key=lambda row: row[0])
    return [
        [n, figure(old), figure(new), tally.legacy, tally.percent] for _, n, old, new, tally in rows[:CLASSES_SHOWN]
    ]


def figure(value: float) -> str:
    """Return a figure in percent, or a dash where there is none.

    >>> figure(41.4567), figure(-1.0)
    ('41.46', '-')
    """
    return "-" if value < 0.0 else f"{value:.2f}"


def signed(value: float) -> str:
    """Return a difference with its sign.

    >>> signed(0.0), signed(-0.01234)
    ('0', '-0.0123')
    """
    return f"{value:+.3g}" if value else "0"


def to_json(result: ApResult) -> dict[str, Any]:
    """Return a result's figures as plain values."""
    matching = result.matching
    return {
        "case": result.case,
        "data": result.data,
        "images": len(matching.images),
        "passes": result.passes,
        "problems": result.problems,
        "notes": list(result.notes),
        "reported": result.reported,
        "legacy": {"figures": result.legacy.figures, "classes": result.legacy.classes},
        "new": {"figures": result.new.figures, "classes": result.new.classes},
        "detections": tally_to_json(matching.total),
        "relabelled": matching.relabelled,
        "shift": list(matching.shift),
        "greatest_offset": matching.greatest_offset,
        "classes": {NAMES[label]: tally_to_json(tally) for label, tally in sorted(matching.classes.items())},
        "sizes": {size: tally_to_json(tally) for size, tally in matching.sizes.items()},
        "most_different": [image_to_json(found, result.shown[found.image][0]) for found in _shown(result)],
    }


def tally_to_json(tally: Tally) -> dict[str, Any]:
    """Return how many detections there are of each engine, and how many match."""
    return {"legacy": tally.legacy, "new": tally.new, "matched": tally.matched, "share": tally.share}


def image_to_json(found: ImageMatch, file: str) -> dict[str, Any]:
    """Return what is different on one image; ``difference`` is the sum of the scores that do not match."""
    return {
        "image": found.image,
        "file": file,
        "difference": found.difference,
        "legacy_unmatched": int((found.legacy != SAME).sum()),
        "new_unmatched": int((found.new != SAME).sum()),
        "relabelled": int((found.legacy == RELABELLED).sum()),
        "offset": found.offset,
    }


def _shown(result: ApResult) -> list[ImageMatch]:
    return [found for found in result.matching.most_different(IMAGES_SHOWN) if found.image in result.shown]
