"""The training data of a case, image by image, from the files to a batch. Runs in both interpreters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

import numpy as np
import torch

from parity.cases.base import TRAIN_PIPELINE, Case
from parity.cases.patterns import item
from parity.engines.base import Engine, Run
from parity.engines.train_data import ANNOTATIONS, IMAGES, Tensors
from parity.errors import ParityError
from parity.taps.pipeline_draws import PipelineDraws
from parity.taps.sketch import generator, sketch

PARTS = 256  # samples, and sums, that are kept of an image's pixels


def train_pipeline(
    engine: Engine,
    case: Case,
    *,
    files: Sequence[bytes],
    annotations: bytes,
    epochs: int,
    seed: int,
    forced: Optional[Mapping[str, torch.Tensor]] = None,
    stage: str = TRAIN_PIPELINE,
) -> Run:
    """Run an engine's own data set, pipeline and collation on a small COCO, every image ``epochs`` times, in order.

    Args:
        files: the encoded images, in the order in which the annotations list them.
        annotations: a COCO annotation file.
        seed: of numpy's generator.
        forced: ``draws[i]`` -> the draws of the i-th example (see ``taps.pipeline_draws``), to be taken again.
        stage: which one it is run for.

    Raises:
        ParityError: the files do not fit the annotations, or a transform draws what cannot be recorded.
    """
    np.random.seed(seed)
    answers = {} if forced is None else dict(forced)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _written(files, annotations) as folder, contextlib.redirect_stdout(io.StringIO()):
            data = engine.train_data(case, folder)
            tensors = dict(_parsed(data))
            tensors.update(_shown(data, epochs, answers))
    finally:
        torch.set_default_dtype(before)
    return Run(tensors, produced={stage: tuple(tensors)})


@contextlib.contextmanager
def _written(files: Sequence[bytes], annotations: bytes) -> Iterator[str]:
    """Yield a folder that holds the annotations and the images."""
    names = [image["file_name"] for image in json.loads(annotations)["images"]]
    if len(names) != len(files) or any(os.path.basename(name) != name for name in names):
        raise ParityError(f"{len(files)} image files for annotations that list {len(names)}: freeze the record again")
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, IMAGES))
        for name, content in [(os.path.join(IMAGES, n), c) for n, c in zip(names, files)] + [
            (ANNOTATIONS, annotations)
        ]:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        yield folder


def _parsed(data: Any) -> Tensors:
    """Return what the data set keeps: the images in order, of each its boxes and labels, and what it is batched with.

    The first image is the one that others are batched with or not.
    """
    found = [data.parsed(index) for index in range(len(data))]
    tensors = {"image_ids": torch.stack([each.pop("image_id") for each in found])}
    tensors["batched_with_first"] = data.batched_with(0)
    tensors.update({item(name, index): value for index, each in enumerate(found) for name, value in each.items()})
    return tensors


def _shown(data: Any, epochs: int, answers: Mapping[str, torch.Tensor]) -> Tensors:
    """Return every example, and every batch of consecutive ones; of pixels a digest."""
    tensors: Tensors = {}
    waiting: List[Any] = []
    total = epochs * len(data)
    for place in range(total):
        with PipelineDraws(answers.get(item("draws", place))) as draws:
            example = data.example(place % len(data))
        tensors[item("draws", place)] = draws.table()
        tensors.update(_example_tensors(data.described(example), place))
        waiting.append(example)
        if len(waiting) == data.batch_size or place == total - 1:
            tensors.update(_digest("batch", place // data.batch_size, data.batch(waiting)))
            waiting = []
    return tensors


def _example_tensors(described: Dict[str, torch.Tensor], place: int) -> Tensors:
    pixels = described.pop("pixels")
    return {**{item(name, place): value for name, value in described.items()}, **_digest("pixels", place, pixels)}


def _digest(name: str, place: int, tensor: torch.Tensor) -> Tensors:
    """Return a few samples, and signed sums that cover everything: of integers one value off by 1 anywhere shows."""
    key, flat = item(name, place), tensor.reshape(-1)
    places = generator(key, "samples").random_raw(PARTS) % np.uint64(flat.numel())
    parts = {
        "shape": torch.tensor(tensor.shape),
        "samples": flat[torch.from_numpy(places.astype(np.int64))],
        "sums": sketch(key, flat, PARTS),
    }
    return {item(f"{name}_{part}", place): value for part, value in parts.items()}
