"""The harness : mmdet's own data loader and test_step, on the same images. Must be at most 1.03.

    python benchmarks/ap_overhead.py [CASE] [ROUNDS]

One process and one thread, loaders in it on both sides; CPU time; rounds in turn, the median of their ratios.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from parity.ap.evaluate import Annotations
from parity.ap.run import Image, Job
from parity.ap.shard import predict_share
from parity.cases.registry import find_case
from parity.coco.synthesize import synthesize
from parity.engines.session import Session
from parity.records.locate import default_fixtures


class Opened:
    """A session that is opened already: building it is no part of the loop."""

    session: Any = None


def open_detector(job: Job, device: str) -> Any:
    Opened.session.close = lambda: None
    return Opened.session


def mmdet_loop(session: Session, root: Path) -> Any:
    """Return mmdet's own loop over the data set of the case's config."""
    from mmengine.runner import Runner

    loader = session.engine.config(session.case).test_dataloader
    loader.dataset.data_root = f"{root}/"
    loader.update(num_workers=0, persistent_workers=False)
    built = Runner.build_dataloader(loader)

    def loop() -> None:
        with torch.no_grad():
            for batch in built:
                session.model.test_step(batch)

    return loop


def main() -> int:
    case = find_case(sys.argv[1] if len(sys.argv) > 1 else "ddq_fcn_small")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    torch.set_num_threads(1)
    session = Session("mmdet3")
    session.load(case.id, "fp32")
    session.read_weights(str(default_fixtures() / "ap" / case.id / "weights.safetensors"))
    Opened.session, ratios = session, []
    with tempfile.TemporaryDirectory() as name:
        root = synthesize(Path(name) / "coco", images=1)
        names = Annotations(root / "annotations" / "instances_val2017.json").images
        images = [Image(number, str(root / "val2017" / file)) for number, file in names.items()]
        job = Job("mmdet3", case.id, "", opener="__main__:open_detector")
        theirs = mmdet_loop(session, root)
        loops = [
            theirs,
            lambda round_=0: predict_share(job, images, Path(name) / f"part-{time.time_ns()}.frames", device="cpu"),
        ]
        for loop in loops:
            loop()
        for round_ in range(rounds):
            seconds = {}
            for loop in loops if round_ % 2 else loops[::-1]:
                start = time.process_time()
                loop()
                seconds[loop] = time.process_time() - start
            ratios.append(seconds[loops[1]] / seconds[theirs])
    ratio = statistics.median(ratios)
    print(
        f"{case.id}, {len(images)} images, {rounds} rounds: harness : mmdet = {ratio:.3f}"
        f" ({min(ratios):.3f} to {max(ratios):.3f})"
    )
    return 0 if ratio <= 1.03 else 1


if __name__ == "__main__":
    sys.exit(main())
