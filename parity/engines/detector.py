"""A detector at work on image files, the way its framework tests it. Runs in both interpreters."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Dict, Sequence

import torch

from parity.cases.base import Case
from parity.cases.patterns import item
from parity.engines.base import Engine

_DTYPES = {"boxes": torch.float32, "scores": torch.float32, "labels": torch.int32}


class Detector:
    """Runs a model on image files, one at a time, through the test pipeline of its config.

    Args:
        loaders: threads that load and resize images ahead; decoding lets go of the interpreter.
    """

    def __init__(self, engine: Engine, case: Case, model: Any, *, loaders: int = 2) -> None:
        self._engine = engine
        self._model = model
        self._pipeline = engine.test_pipeline(case)
        self._pool = ThreadPoolExecutor(loaders)
        self._loading: Dict[str, Future[Any]] = {}

    def detect(self, paths: Sequence[str], ahead: Sequence[str] = ()) -> Dict[str, torch.Tensor]:
        """Return ``boxes[i]`` (N, 4) float32 in pixels xyxy, ``scores[i]`` float32 and ``labels[i]`` int32.

        ``ahead`` are the images that will be asked for next: they are loaded meanwhile.
        """
        for path in (*paths, *ahead):
            if path not in self._loading:
                self._loading[path] = self._pool.submit(self._pipeline, path)
        found: Dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for index, path in enumerate(paths):
                tensors = self._engine.detect(self._model, self._loading.pop(path).result())
                for name, dtype in _DTYPES.items():
                    found[item(name, index)] = tensors[name].detach().to("cpu", dtype)
        return found
