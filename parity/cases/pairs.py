"""A case with other engines than its own: the same one compiled, on another device, under another torch.

Its id says so, ``stock_retinanet_r50_1x@mmdet3..mmdet3_compiled``, so that records and the worker know as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Tuple

from parity.cases.base import Case
from parity.errors import ParityError

MARK, BETWEEN = "@", ".."

# Engines that run another one's detectors in another way: they share its configs, calls and parameter names.
VARIANTS = {"mmdet3_compiled": "mmdet3"}


def paired_id(case_id: str, old: str, new: str) -> str:
    """Return the id of a case with these engines.

    >>> paired_id("a", "mmdet3", "mmdet3_compiled")
    'a@mmdet3..mmdet3_compiled'
    """
    return f"{case_id}{MARK}{old}{BETWEEN}{new}"


def split_id(case_id: str) -> Tuple[str, str, str]:
    """Return a case's own id and the two engines that it is to have; these are empty for its own."""
    own, _, pair = case_id.partition(MARK)
    old, _, new = pair.partition(BETWEEN)
    return own, old, new


def with_engines(case: Case, old: str, new: str) -> Case:
    """Return the case with ``old`` as the truth and ``new`` as what is judged.

    Raises:
        ParityError: the case does not say how one of the engines runs it.
    """
    for engine in (old, new):
        if base(engine) not in (case.legacy, case.new):
            raise ParityError(f"--pair: case {case.id} is declared for {case.legacy} and {case.new}, not for {engine}")
    if base(new) == case.legacy and base(old) != case.legacy:
        raise ParityError(f"--pair {old} {new}: the truth comes first, as in --pair {case.legacy} {new}")
    if base(old) == base(new):
        stages = case.stages_of(base(new))
        case = replace(case, stages=stages, legacy_stages=(), rules=(), deviations=())
    engines = {engine: base(engine) for engine in (old, new)}
    return replace(
        case,
        id=paired_id(case.id, old, new),
        title=f"{case.title} ({old} against {new})",
        legacy=old,
        new=new,
        configs={**case.configs, **{engine: case.configs[known] for engine, known in engines.items()}},
        options={**case.options, **{engine: case.options.get(known, {}) for engine, known in engines.items()}},
    )


def base(engine: str) -> str:
    """Return the engine that declares the calls of this one."""
    return VARIANTS.get(engine, engine)
