"""`parity coco` on a file as large as COCO's instances_train2017.json beside `json.load` and `json.dump`: time, memory.

The file is made up in a temporary folder: as many images, annotations and bytes, with polygons of random numbers.
Each tool runs in a process of its own, whose greatest memory the kernel tells.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from parity.coco.categories import IDS, categories

IMAGES, ANNOTATIONS = 118_287, 860_001
POOL = 2_000  # different polygons; a parser cannot tell that they come again
LOAD_AND_DUMP = "import json, sys; json.dump(json.load(open(sys.argv[1])), open(sys.argv[2], 'w'))"


def annotations(share: float) -> Iterator[str]:
    """Yield annotations in COCO's own form, about 505 bytes each."""
    random.seed(0)
    outlines = [
        json.dumps([[round(random.uniform(0, 640), 2) for _ in range(2 * random.randint(4, 44))]]) for _ in range(POOL)
    ]
    images = int(IMAGES * share)
    for number in range(int(ANNOTATIONS * share)):
        x, y = round(random.uniform(0, 300), 2), round(random.uniform(0, 300), 2)
        yield (
            f'{{"segmentation": {random.choice(outlines)}, "area": {x + y}, "iscrowd": 0, '
            f'"image_id": {random.randrange(images) * 5 + 9}, "bbox": [{x}, {y}, {y + 5}, {x + 5}], '
            f'"category_id": {random.choice(IDS)}, "id": {number + 1}}}'
        )


def write_large(path: Path, share: float) -> None:
    images = [
        {"license": 3, "file_name": f"{n * 5 + 9:012}.jpg", "height": 640, "width": 640, "id": n * 5 + 9}
        for n in range(int(IMAGES * share))
    ]
    with path.open("w") as file:
        file.write(f'{{"info": {{}}, "images": {json.dumps(images)}, "annotations": [')
        for number, line in enumerate(annotations(share)):
            file.write(f"{', ' if number else ''}{line}")
        file.write(f'], "categories": {json.dumps(categories())}}}')


def cost(*words: object) -> tuple[float, float]:
    """Run Python with these words; return its seconds and its greatest memory in megabytes."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):  # 1: `check` found something
        raise SystemExit(f"{words} ended with {child.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of instances_train2017.json's size")
    share = parser.parse_args().share
    with tempfile.TemporaryDirectory() as folder:
        large, out = Path(folder) / "large.json", Path(folder) / "out.json"
        write_large(large, share)
        print(f"{large.stat().st_size / 1e6:.0f} MB, {int(ANNOTATIONS * share)} annotations")
        plain, memory = cost("-c", LOAD_AND_DUMP, large, out)
        print(f"{'json.load + json.dump':24} {plain:6.1f} s {memory:6.0f} MB")
        parity = ("-m", "parity", "coco")
        for words in (
            ("subset", large, out, "--sample", int(IMAGES * share * 0.9)),
            ("only-empty", large, out),
            ("only-annotated", large, out),
            ("labels", large, out, "--80"),
            ("check", large),
            ("stats", large),
        ):
            seconds, memory = cost(*parity, *words)
            print(f"{words[0]:24} {seconds:6.1f} s {memory:6.0f} MB, ratio of time {plain / seconds:.1f}")
    print("must hold: every ratio at least 1, memory at most 1500 MB")


if __name__ == "__main__":
    main()
