"""Several cases at a time, each in a process of its own: a case's detector is built once, whatever is planted in it."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from parity.cases.outside import named_folders, use_folders
from parity.errors import ParityError
from parity.orphans import end_with_parent

T = TypeVar("T")
Work = Callable[[argparse.Namespace, str], T]


def each_case(work: Work[T], options: argparse.Namespace, case_ids: Sequence[str]) -> list[T]:
    """Return what ``work(options, case_id)`` returns for each case; ``--jobs N`` works on N cases at a time.

    Raises:
        ParityError: ``--jobs`` is less than 1, or what ``work`` raises.
    """
    if options.jobs < 1:
        raise ParityError(f"--jobs {options.jobs}: at least 1")
    if options.jobs == 1:
        return [work(options, case_id) for case_id in case_ids]
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), _begin, (options, os.getpid())) as pool:
        return list(pool.map(partial(work, options), case_ids))


def _begin(options: argparse.Namespace, parent: int) -> None:
    """Make a process ready: the user's own cases, and its share of the cores."""
    import torch

    end_with_parent(parent)
    if not options.debug:  # as in the process that asks
        warnings.simplefilter("ignore")
    use_folders([*named_folders(), *options.case_folders])
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.jobs))
