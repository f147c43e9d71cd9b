"""What ``parity new-case`` does, behind its options."""

from __future__ import annotations

import argparse
import keyword
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from parity.cases.base import Batch, Case, Fill
from parity.cases.outside import named_folders, use_folders
from parity.cases.registry import all_cases, find_case
from parity.drafting import show, source
from parity.drafting.fills import draft_fills
from parity.drafting.known import Known, known_differences
from parity.drafting.match import Match, match
from parity.drafting.renames import rules_for
from parity.drafting.source import Code
from parity.drafting.stages import PATHS, Drafted, Drafter, kind_of
from parity.drafting.values import checkpoint_values, remarks
from parity.engines.opening import open_legacy
from parity.engines.session import Session
from parity.errors import ParityError
from parity.records.images import encoded_images, parse_sizes
from parity.weights import synthetic
from parity.weights.conversion import convert
from parity.weights.rules import Rule

Calls = list[dict[str, Any]]
SIZES = ((128, 160), (96, 150))
RECORDS = {
    "padded": Batch(seed=1, sizes=SIZES),
    "unpadded": Batch(seed=2, sizes=((96, 128), (96, 128))),
}


@dataclass
class _Draft:
    """What was found out about the two models."""

    match: Match
    rules: tuple[Rule, ...]
    fills: tuple[Fill, ...]
    shapes: tuple[dict[str, list[int]], dict[str, list[int]]]
    kind: str
    stages: Drafted
    known: tuple[Known, ...]
    remarks: tuple[str, ...]


def new_case(options: argparse.Namespace) -> Iterator[str]:
    """Write a case file and its match of weights; yield what to tell, a line each.

    Raises:
        ParityError: the name or a config is not good, an engine cannot build or run its model, or the file exists.
    """
    folder = _folder(options)
    target = folder / f"{options.name}.py"
    if target.exists() and not options.force:
        raise ParityError(f"{target} exists; --force replaces it")
    draft = _draft(options)
    text = source.module(_sections(options, draft), title=options.name, legacy="mmdet 2", new="mmdet 3")
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(target)
    files = show.write_files(folder / f"{options.name}-weights", options.name, draft.match, *draft.shapes)
    yield f"{options.name}: a {draft.kind} detector, {len(draft.stages.stages)} stages: " + ", ".join(
        stage.name for stage in draft.stages.stages
    )
    yield from show.table(draft.match, draft.rules, *draft.shapes)
    yield from draft.remarks
    yield from map(str, draft.known)
    yield from (f"to do: {line}" for line in _to_do(draft))
    yield f"wrote {target}"
    yield from (f"wrote {file}" for file in files)
    cases = f" --cases {folder}" if str(folder.resolve()) not in _known() else ""
    yield f"next: parity freeze {options.name}{cases} --out records"
    yield f"then: parity check {options.name}{cases} --fixtures records"


def _folder(options: argparse.Namespace) -> Path:
    if not options.name.isidentifier() or keyword.iskeyword(options.name):
        raise ParityError(f"case name {options.name!r}: letters, digits and underscores make a name")
    if options.name in all_cases() and not options.force:
        raise ParityError(f"case {options.name} exists already")
    named: list[Path] = [*options.case_folders, *named_folders()]
    return named[0] if named else Path("cases")


def _known() -> list[str]:
    import parity.cases

    return [str(Path(str(folder)).resolve()) for folder in [*named_folders(), parity.cases.__path__[0]]]


def _draft(options: argparse.Namespace) -> _Draft:
    """Build both models, pair their weights, run both and draft the stages."""
    with tempfile.TemporaryDirectory() as scratch:
        provisional = f"provisional_{options.name}"
        configs = {options.legacy_engine: _config(options.legacy_config), "mmdet3": _config(options.new_config)}
        sections = [("", "CASES", (_case(provisional, configs, options.legacy_engine, weights=(Fill("*"),)),))]
        (Path(scratch) / f"{provisional}.py").write_text(source.module(sections, title=provisional, legacy="", new=""))
        try:
            use_folders([Path(scratch)])
            return _looked_at(provisional, options)
        finally:
            _forget(scratch)


def _forget(folder: str) -> None:
    import parity.cases

    parity.cases.__path__ = [known for known in parity.cases.__path__ if known != str(Path(folder).resolve())]
    all_cases.cache_clear()


def _config(given: str) -> str:
    """Return a config as the engine looks for it: a file by its whole path, any other as a stock one's name."""
    return str(Path(given).resolve()) if Path(given).is_file() else given


def _case(name: str, configs: Mapping[str, str], legacy: str, **given: Any) -> Case:
    declared: dict[str, Any] = {"stages": (), "tensors": {}, "records": {}, **given}
    return Case(
        id=name,
        title=name,
        legacy=legacy,
        new="mmdet3",
        configs=dict(configs),
        reported_ap=0.0,
        **declared,
    )


def _looked_at(case_id: str, options: argparse.Namespace) -> _Draft:
    values = checkpoint_values(options)
    shown = next(iter(_records(options).values()))
    files = encoded_images(shown, seed=1)
    with open_legacy(options.legacy_engine, options) as legacy:
        new = Session("mmdet3")
        shapes = legacy.load(case_id, "fp32"), new.load(case_id, "fp32")
        found = match(*shapes, source_values=values[0].hashes, target_values=values[1].hashes)
        pixels = legacy.preprocess(files, (0, 0)).tensors
        image_rms = float(pixels["image"].square().mean().sqrt())
        rules, fills = rules_for(found.pairs, found.left_sources), draft_fills(shapes[0], image_rms=image_rms)
        legacy.fill(1, [asdict(fill) for fill in fills])
        of_legacy = _observed(partial(legacy.observe, pixels, PATHS), shown)
        state = synthetic.state_dict({n: tuple(s) for n, s in shapes[0].items()}, seed=1, rules=fills)
        if found.left_targets:
            new.fill(1, [asdict(fill) for fill in fills])
        else:
            new.load_state(convert(state, target_names=shapes[1], rules=rules))
        pixels = new.preprocess(files, (0, 0)).tensors
        of_new = _observed(partial(new.observe, pixels, PATHS), shown)
    height, width = pixels["batch_input_shape"].tolist()
    drafted = Drafter(of_legacy, of_new, (height, width)).draft()
    calls = [call.path for stage in drafted.stages for call in stage.calls]
    drafted.to_do += [f"{part} runs in no stage: its weights are not proven" for part in new.left_out(pixels, calls)]
    kind = kind_of([*of_legacy, *of_new])
    known = tuple(known_differences(kind, new.engine.config(find_case(case_id))))
    return _Draft(found, rules, fills, shapes, kind, drafted, known, tuple(remarks(*values, shapes=shapes)))


def _records(options: argparse.Namespace) -> dict[str, Batch]:
    """Return the records to declare; the models are looked at with the first one's images."""
    return {"drawn": Batch(seed=1, sizes=parse_sizes(options.sizes))} if options.sizes else RECORDS


def _observed(observe: Callable[[], Calls], shown: Batch) -> Calls:
    """Run a detector; where it fails, say what it was shown: some take images of a certain size only."""
    try:
        return observe()
    except Exception as error:  # whatever the frameworks raise: SSD of mmdet 3.3 misses an attribute of its own
        told = str(error) if isinstance(error, ParityError) else f"engine mmdet3: {type(error).__name__}: {error}"
        sizes = ", ".join(f"{height}x{width}" for height, width in shown.sizes)
        raise ParityError(
            f"{told}; it was shown drawn images of {sizes}, --sizes HxW,… draws others",
            detail=getattr(error, "detail", "") or traceback.format_exc(),
        ) from error


def _sections(options: argparse.Namespace, draft: _Draft) -> list[tuple[str, str, Any]]:
    """Return the parts of the case file, each a (comment, name, value)."""
    configs = {options.legacy_engine: _config(options.legacy_config), "mmdet3": _config(options.new_config)}
    names = {"stages": "STAGES", "legacy_stages": "LEGACY_STAGES", "tensors": "TENSORS", "weights": "WEIGHTS"}
    given = {key: Code(name) for key, name in {**names, "records": "RECORDS", "rules": "RULES"}.items()}
    known: dict[str, Any] = {"deviations": tuple(each.deviation for each in draft.known)}
    if any(each.options for each in draft.known):
        known["options"] = {"mmdet3": {key: value for each in draft.known for key, value in each.options.items()}}
    to_do = "".join(f"\nTO DO: {line}" for line in _to_do(draft))
    doubt = "".join(f"\nCONFIRM: {p.source} -> {p.target}, or {p.rivals}" for p in draft.match.ambiguous)
    return [
        ("", "TENSORS", {Code("**PIXELS"): Code(""), **draft.stages.tensors}),
        (
            "The calls of the legacy engine; only the tensors' names have to be those below.",
            "LEGACY_STAGES",
            tuple(draft.stages.legacy_stages),
        ),
        (f"The calls of the new engine.{to_do}", "STAGES", tuple(draft.stages.stages)),
        (
            "First match wins. Activations of size 1, class scores that spread, nothing trivial.",
            "WEIGHTS",
            source.fills(draft.fills),
        ),
        (f"{show.summary(draft.match)}{doubt}", "RULES", draft.rules),
        ("", "RECORDS", _records(options)),
        ("", "CASES", (_case(options.name, configs, options.legacy_engine, **given, **known),)),
    ]


def _to_do(draft: _Draft) -> list[str]:
    lines = list(draft.stages.to_do)
    for name, likely in draft.match.left_targets.items():
        lines.append(f"no legacy key becomes {name}: write a rule (likeliest: {', '.join(likely)})")
    for name, likely in draft.match.left_sources.items():
        lines.append(f"{name} has no place in the new engine: a rule drops it (likeliest: {', '.join(likely)})")
    return lines
