"""Train a small detector with its legacy engine on the drawn COCO: where the weights in fixtures/ap come from.

    parity coco synthesize small --images 2000
    PYTHONPATH=. LEGACY_PYTHON benchmarks/train_small.py ddq_fcn_small --legacy-root DDQ --coco small --out weights

Runs in the legacy interpreter, on one CPU thread. The engine's own detector, losses and gradient; AdamW at one
rate with a linear warm-up and a cosine at the end; horizontal flips. A second call goes on where a first was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from parity.cases.registry import find_case
from parity.engines.session import make_engine
from parity.engines.training import loss_terms, total_loss

MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
Sample = Any  # pixels RGB, boxes xyxy, labels: three arrays
WARM_UP = 200


def read_samples(root: Path) -> list[Sample]:
    """Return the training images with their objects, crowds left out."""
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    labels = {category["id"]: label for label, category in enumerate(content["categories"])}
    objects: dict[int, list[Any]] = {}
    for one in content["annotations"]:
        if not one["iscrowd"]:
            objects.setdefault(one["image_id"], []).append((*one["bbox"], labels[one["category_id"]]))
    samples = []
    for image in content["images"]:
        pixels = cv2.imread(str(root / "train2017" / image["file_name"]))[..., ::-1]
        table = np.array(objects.get(image["id"], []), np.float32).reshape(-1, 5)
        boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
        samples.append((np.ascontiguousarray(pixels), boxes, table[:, 4].astype(np.int64)))
    return samples


def flipped(sample: Sample) -> Sample:
    pixels, boxes, labels = sample
    width = pixels.shape[1]
    mirrored = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    return np.ascontiguousarray(pixels[:, ::-1]), mirrored, labels


def batch_of(samples: list[Sample], divisor: int) -> dict[str, torch.Tensor]:
    """Return images of one size as the engine's batch, padded to a multiple of ``divisor`` pixels."""
    height, width = samples[0][0].shape[:2]
    padded = [-(-side // divisor) * divisor for side in (height, width)]
    image = np.zeros((len(samples), 3, *padded), np.float32)
    batch: dict[str, torch.Tensor] = {}
    for i, (pixels, boxes, labels) in enumerate(samples):
        image[i, :, :height, :width] = ((pixels - MEAN) / STD).transpose(2, 0, 1)
        batch[f"gt_boxes[{i}]"] = torch.from_numpy(boxes.copy())
        batch[f"gt_labels[{i}]"] = torch.from_numpy(labels.copy())
    sizes = torch.tensor([[height, width]] * len(samples))
    batch.update(image=torch.from_numpy(image), img_shape=sizes, ori_shape=sizes)
    batch.update(scale_factor=torch.ones(len(samples), 2), batch_input_shape=torch.tensor(padded))
    return batch


class Training:
    """One run: model, optimiser, and where it is."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        random.seed(options.seed)
        case = find_case(options.case)
        self.options = options
        self.engine = make_engine(case.legacy, root=options.legacy_root)
        self.model = self.engine.build(case, torch.float32)
        self.names = list(self.model.state_dict())  # training adds names for parameters that are shared
        self.model.init_weights()
        if options.backbone:
            self._start_backbone(options.backbone)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=options.lr, weight_decay=options.decay)
        self.first = 0
        self.kept = Path(f"{options.out}.resume")
        if self.kept.exists():
            self._resume()

    def _start_backbone(self, path: str) -> None:
        state = {name: torch.from_numpy(value) for name, value in load_file(path).items()}
        own = {name[len("backbone.") :]: value for name, value in state.items() if name.startswith("backbone.")}
        self.model.backbone.load_state_dict(own)

    def _resume(self) -> None:
        kept = torch.load(str(self.kept))
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.first = kept["step"]

    def step(self, number: int, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """Update once; return the loss terms."""
        rate = self.options.lr * 0.5 * (1 + math.cos(math.pi * number / self.options.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (number + 1) / WARM_UP)
        terms = loss_terms(self.engine.losses(self.model, batch), {})
        total = total_loss(terms)
        self.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimizer.step()
        return {"total": float(total), **{name: float(value) for name, value in terms.items() if "[" not in name}}

    def save(self, number: int) -> None:
        part = self.kept.with_suffix(".part")
        kept = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": number}
        torch.save(kept, str(part))
        part.replace(self.kept)
        state = self.model.state_dict()
        save_file({name: state[name].clone() for name in self.names}, self.options.out)


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    training = Training(options)
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for sample in read_samples(Path(options.coco)):
        groups.setdefault(sample[0].shape, []).append(sample)
    sizes = sorted(groups)
    draw = random.Random(options.seed * 1000003 + training.first)
    began = time.time()
    for number in range(training.first, options.stop or options.steps):
        chosen = draw.sample(groups[draw.choice(sizes)], options.batch)
        chosen = [flipped(sample) if draw.random() < 0.5 else sample for sample in chosen]
        terms = training.step(number, batch_of(chosen, options.divisor))
        if (number + 1) % options.every == 0:
            seconds = (time.time() - began) / (number + 1 - training.first)
            shown = " ".join(f"{name} {value:.3f}" for name, value in terms.items() if "dn" not in name)
            print(f"{number + 1}/{options.steps} {seconds:.2f} s/step {shown}", flush=True)
            training.save(number + 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--legacy-root", required=True)
    parser.add_argument("--coco", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--stop", type=int, default=0, help="stop after this many of them")
    parser.add_argument("--backbone", default="", help="weights to start the backbone from")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--clip", type=float, default=10.0)
    parser.add_argument("--divisor", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=50)
    train(parser.parse_args())
