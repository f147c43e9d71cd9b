"""The words of ``parity coco``; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_coco(commands: Any) -> None:
    """Add ``coco`` and its own subcommands."""
    coco = commands.add_parser("coco", help="tools for COCO data sets")
    tools = coco.add_subparsers(dest="tool", required=True, metavar="TOOL")
    for add in (_add_synthesize, _add_subset, _add_only, _add_labels, _add_check, _add_stats):
        add(tools)


def _add_synthesize(tools: Any) -> None:
    synthesize = tools.add_parser("synthesize", help="draw a small COCO: same options, same bytes")
    synthesize.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    synthesize.add_argument("--images", type=int, default=64, metavar="N", help="images to train on (default: 64)")
    synthesize.add_argument("--val", type=int, default=32, metavar="N", help="images to validate on (default: 32)")
    synthesize.add_argument("--seed", type=int, default=0, metavar="N")
    synthesize.add_argument("--size", nargs="+", default=[], metavar="HxW", help="of the images in turn, in pixels")
    synthesize.add_argument("--panoptic", action="store_true", help="write panoptic annotations too")
    synthesize.set_defaults(run=_synthesize)


def _add_subset(tools: Any) -> None:
    subset = tools.add_parser("subset", help="keep some images of an annotation file")
    _files(subset)
    which = subset.add_mutually_exclusive_group(required=True)
    which.add_argument("--first", type=int, metavar="N", help="the first N images")
    which.add_argument("--ids", type=int, nargs="+", metavar="ID", help="these images")
    which.add_argument("--image", metavar="NAME|ID", help="one image, by file name or id")
    which.add_argument("--sample", type=int, metavar="N", help="N images by chance; more of them hold fewer")
    subset.add_argument("--seed", type=int, default=0, metavar="N", help="of --sample")
    subset.set_defaults(run=_subset)


def _add_only(tools: Any) -> None:
    for name, wanted in (("only-empty", False), ("only-annotated", True)):
        only = tools.add_parser(name, help=f"keep the images with{'' if wanted else 'out'} objects")
        _files(only)
        only.add_argument("--crowds", action="store_true", help="let crowds count as objects")
        only.set_defaults(run=_only, wanted=wanted)


def _files(tool: Any) -> None:
    tool.add_argument("input", type=Path, metavar="IN.json", help="instances or panoptic annotations")
    tool.add_argument("output", type=Path, metavar="OUT.json")
    tool.add_argument(
        "--panoptic",
        type=Path,
        nargs=2,
        metavar=("IN.json", "OUT.json"),
        help="keep the same images of this panoptic file",
    )


def _add_labels(tools: Any) -> None:
    labels = tools.add_parser("labels", help="map annotations, results or a checkpoint's head: 91 ids or 80 classes")
    labels.add_argument(
        "input", type=Path, metavar="IN", help=".json, or a checkpoint (.pth, .safetensors, .index.json)"
    )
    labels.add_argument("output", type=Path, metavar="OUT")
    to = labels.add_mutually_exclusive_group(required=True)
    to.add_argument("--91", dest="to", action="store_const", const=91, help="to COCO's own ids")
    to.add_argument("--80", dest="to", action="store_const", const=80, help="to contiguous classes, 0 to 79")
    labels.add_argument("--head", default="", metavar="PATTERN", help="parameters to map, such as '*.fc_cls.*'")
    labels.add_argument("--ema", action="store_true", help="take the averaged weights, not the trained ones")
    labels.add_argument("--ema-from", default="", metavar="PLACE", help="of several averages, those of PLACE")
    labels.add_argument("--trust-pickle", action="store_true", help="run whatever the file's pickle asks for")
    labels.set_defaults(run=_labels)


def _add_check(tools: Any) -> None:
    check = tools.add_parser("check", help="find what is wrong with an annotation file; exit status 1 if anything is")
    check.add_argument("input", type=Path, metavar="IN.json", help="instances or panoptic annotations")
    check.add_argument("--images", type=Path, metavar="DIR", help="where the images are: look for each")
    check.add_argument("--masks", type=Path, metavar="DIR", help="where a panoptic file's PNGs are: look for each")
    check.set_defaults(run=_check)


def _add_stats(tools: Any) -> None:
    stats = tools.add_parser("stats", help="count what is in an annotation file")
    stats.add_argument("input", type=Path, metavar="IN.json", help="instances or panoptic annotations")
    stats.add_argument("--json", action="store_true", help="print JSON")
    stats.set_defaults(run=_stats)


def _synthesize(options: argparse.Namespace) -> int:
    from parity.coco.synthesize import SIZES, synthesize
    from parity.errors import ParityError
    from parity.records.images import parse_sizes

    for name in ("images", "val"):
        if getattr(options, name) < 1:
            raise ParityError(f"--{name} {getattr(options, name)}: draw at least one")
    sizes = parse_sizes(",".join(options.size), option="--size") if options.size else SIZES
    folder = synthesize(
        options.out,
        images=options.images,
        val=options.val,
        seed=options.seed,
        sizes=sizes,
        panoptic=options.panoptic,
    )
    print(f"drawn: {folder}, {options.images} images to train on and {options.val} to validate on")
    return 0


def _subset(options: argparse.Namespace) -> int:
    from parity.coco import subset

    if options.first is not None:
        choice = subset.first(options.first)
    elif options.sample is not None:
        choice = subset.sample(options.sample, seed=options.seed)
    else:
        choice = subset.given(options.ids) if options.ids else subset.one(options.image)
    return _cut(options, choice)


def _only(options: argparse.Namespace) -> int:
    from parity.coco import subset

    return _cut(options, subset.with_objects(wanted=options.wanted, crowds=options.crowds))


def _cut(options: argparse.Namespace, choice: Any) -> int:
    from parity.coco.subset import cut

    for kept in cut(options.input, options.output, choice, panoptic=options.panoptic):
        print(kept.line())
    return 0


def _labels(options: argparse.Namespace) -> int:
    if options.input.suffix == ".json" and not options.input.name.endswith(".index.json"):
        from parity.coco.labels import relabel

        lines = [relabel(options.input, options.output, to=options.to)]
    else:
        from parity.coco.heads import map_checkpoint

        lines = map_checkpoint(
            options.input,
            options.output,
            to=options.to,
            pattern=options.head,
            ema=options.ema,
            ema_from=options.ema_from,
            trust_pickle=options.trust_pickle,
        )
    print("\n".join(lines))
    return 0


def _check(options: argparse.Namespace) -> int:
    from parity.coco.check import check

    problems = check(options.input, images=options.images, masks=options.masks)
    print("\n".join(problems.lines() or [f"{options.input}: nothing wrong"]))
    return 1 if problems.found else 0


def _stats(options: argparse.Namespace) -> int:
    import json

    from parity.coco.stats import lines, stats

    counts = stats(options.input)
    print(json.dumps(counts) if options.json else "\n".join(lines(counts)))
    return 0
