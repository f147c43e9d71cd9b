"""One engine's training step, tapped: forward, losses, gradients, clipping, and the optimiser's update."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import torch

from parity.cases.base import GRADIENTS, LOSS, OPTIMIZER_STEP, TRAJECTORY
from parity.cases.patterns import item
from parity.engines import group
from parity.engines.base import Run, Updater
from parity.taps.decisions import ASSIGNMENT, Decision
from parity.taps.draws import DrawTaps
from parity.taps.islands import Promote
from parity.taps.sketch import WIDTH, sketch

Tensors = Dict[str, torch.Tensor]

# Of a step of several processes: what each of them has of its own in a stage that they otherwise have in common, and
# whether all of them end with the same parameters.
OWN_NORM, OWN_COUNT, AGREE = "own_norm", "own_count", "processes_agree"

# What a parameter group says of its parameters, column by column of the table ``settings``.
SETTINGS = ("lr", "weight_decay", "momentum", "beta1", "beta2", "eps", "dampening", "nesterov", "amsgrad")
TRAJECTORY_WIDTH = 16


@dataclass
class Step:
    """What one training step gave beside the tapped stages: named tensors by stage, and the tables' rows."""

    tensors: Dict[str, Tensors] = field(default_factory=dict)
    rows: Dict[str, Tuple[str, ...]] = field(default_factory=dict)

    def add(self, stage: str, name: str, tensor: torch.Tensor, rows: Sequence[str] = ()) -> None:
        self.tensors.setdefault(stage, {})[name] = tensor
        if rows:
            self.rows[name] = tuple(rows)


def loss_terms(losses: Mapping[str, Any], names: Mapping[str, str]) -> Tensors:
    """Return every term as a number, under its legacy name; a list has one term a level, ``name[0]``, …

    ``names`` holds prefix -> legacy prefix.
    """
    terms: Tensors = {}
    for name, value in losses.items():
        for prefix, legacy in names.items():
            if name.startswith(prefix):
                name = legacy + name[len(prefix) :]
        values = value if isinstance(value, (list, tuple)) else [value]
        for index, term in enumerate(values):
            terms[name if value is term else item(name, index)] = torch.as_tensor(term).mean()
    return terms


def total_loss(terms: Tensors) -> torch.Tensor:
    """Return the sum that both frameworks differentiate: of all terms with "loss" in their name."""
    return sum((term for name, term in terms.items() if "loss" in name), torch.zeros(()))


def finish_step(step: Step, model: Any, terms: Tensors, updater: Updater, *, width: int = WIDTH) -> None:
    """Differentiate, clip, update; keep what each of them gave.

    Several processes average their gradients before they clip.
    """
    for name, term in terms.items():
        step.add(LOSS, name, term.detach())
    total = total_loss(terms)
    step.add(LOSS, "total", total.detach())
    updater.optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    together = group.size() > 1
    if together:
        _average(step, model)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients = {name: parameter.grad for name, parameter in trained.items()}
    step.add(GRADIENTS, "gradients", sketches(gradients, width), list(gradients))
    step.add(GRADIENTS, "norm", norm(gradients))
    updater.clip_gradients(list(trained.values()))
    step.add(GRADIENTS, "clipped_norm", norm(gradients))
    table = settings(model, updater.optimizer)
    step.add(OPTIMIZER_STEP, "settings", table, [name for name, _ in model.named_parameters()])
    step.add(OPTIMIZER_STEP, "optimizer", text(type(updater.optimizer).__name__))
    updater.optimizer.step()
    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    step.add(OPTIMIZER_STEP, "parameters", sketches(state, width), list(state))
    if together:
        step.add(OPTIMIZER_STEP, AGREE, torch.tensor(group.agree(state)))


def _average(step: Step, model: Any) -> None:
    """Average the gradients over the processes; keep the norm and the number of this one's own."""
    own = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    step.add(GRADIENTS, OWN_NORM, norm(own))
    step.add(GRADIENTS, OWN_COUNT, torch.tensor(len(own)))
    group.average_gradients(model)


def sketches(tensors: Mapping[str, torch.Tensor], width: int) -> torch.Tensor:
    """Return (P, width) float64: a sketch of every tensor, one a row."""
    rows = [sketch(name, tensor, width) for name, tensor in tensors.items()]
    return torch.stack(rows) if rows else torch.zeros(0, width, dtype=torch.float64)


def norm(gradients: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the L2 norm over all gradients together, float64."""
    squares = (float(gradient.detach().double().pow(2).sum()) for gradient in gradients.values())
    return torch.tensor(math.sqrt(math.fsum(squares)), dtype=torch.float64)


def settings(model: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """Return (P, 1 + SETTINGS) float64: whether each parameter is trained, and its group's settings.

    All 0 for one that is not: whether a frozen parameter sits in some group is of no effect.
    """
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    rows = []
    for parameter in model.parameters():
        group = dict(groups.get(id(parameter), {})) if parameter.requires_grad else {}
        group["beta1"], group["beta2"] = group.get("betas", (0.0, 0.0))
        rows.append([float("params" in group), *(float(group.get(name) or 0.0) for name in SETTINGS)])
    return torch.tensor(rows, dtype=torch.float64)


def text(word: str) -> torch.Tensor:
    """Return a word as its bytes, uint8: words are compared like any other tensor."""
    return torch.tensor(list(word.encode()), dtype=torch.uint8)


def images_of_step(batch: Mapping[str, torch.Tensor], number: int, per_step: int) -> Tensors:
    """Return the part of a batch that a step trains on: ``per_step`` images, the next ones each time; 0 for all."""
    count = len(batch["img_shape"])
    if not per_step:
        return dict(batch)
    chosen = [(number * per_step + i) % count for i in range(per_step)]
    part: Tensors = {}
    for name, tensor in batch.items():
        if "[" not in name and name != "batch_input_shape":
            part[name] = tensor[chosen]
        elif "[" not in name:
            part[name] = tensor
    for place, image in enumerate(chosen):
        for name in ("gt_boxes", "gt_labels"):
            part[item(name, place)] = batch[item(name, image)]
    return part


def train(
    session: Any,
    batch: Mapping[str, torch.Tensor],
    *,
    steps: int = 1,
    per_step: int = 0,
    draws: Optional[Mapping[str, torch.Tensor]] = None,
    forced: Optional[Mapping[str, torch.Tensor]] = None,
    promote: Promote = True,
    seed: int = 0,
) -> Run:
    """Train the session's model on a batch; return everything that happened on the way.

    One step keeps the tapped stages whole, its decisions and its draws; of a trajectory all tensors are
    sketched and decisions are kept as what was chosen, under the one stage ``trajectory``.
    """
    trainer = _Trainer(session, promote=promote, seed=seed, width=WIDTH if steps == 1 else TRAJECTORY_WIDTH)
    if steps == 1:
        return trainer.step(batch, draws=draws or {}, forced=forced)
    whole = Run({})
    for number in range(steps):
        label = f"step[{number}]."
        given = {name[len(label) :]: tensor for name, tensor in (draws or {}).items() if name.startswith(label)}
        run = trainer.step(images_of_step(batch, number, per_step), draws=given, forced=None)
        _append(whole, run, label)
    return whole


class _Trainer:
    """A model in training mode with its optimiser."""

    def __init__(self, session: Any, *, promote: Promote, seed: int, width: int) -> None:
        self.session, self.promote, self.seed, self.width = session, promote, seed, width
        self.case, self.engine, self.model = session.case, session.engine, session.model
        self.updater = self.engine.updater(self.case, self.model)
        self.count = 0

    def step(
        self,
        batch: Mapping[str, torch.Tensor],
        *,
        draws: Mapping[str, torch.Tensor],
        forced: Optional[Mapping[str, torch.Tensor]],
    ) -> Run:
        """Run one whole step; the model is left in evaluation mode, its weights moved."""
        session = self.session
        placed = {name: session.placed(tensor) for name, tensor in batch.items()}
        stages = self.case.training_stages_of(self.engine.name)
        names = self.case.loss_names if self.engine.name == self.case.new else {}
        seed, self.count = self.seed + self.count, self.count + 1
        self.model.train()
        try:
            with session.tapped(stages, forced, self.promote, outside=LOSS, gradients=True) as taps:
                with DrawTaps(lambda: taps[0].stage, draws, seed) as drawn:
                    terms = loss_terms(self.engine.losses(self.model, placed), names)
                step = Step()
                finish_step(step, self.model, terms, self.updater, width=self.width)
        finally:
            self.model.eval()
        run: Run = session.collected(*taps)
        for name, numbers in drawn.drawn.items():
            step.add(drawn.stages[name], f"draw.{name}", numbers)
        for stage, tensors in step.tensors.items():
            named = finite(tensors, session.dtype)
            run.tensors.update(named)
            run.produced[stage] = (*run.produced.get(stage, ()), *named)
        run.rows.update(step.rows)
        return run


def finite(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Tensors:
    """Return the tensors on the CPU, floats of one dtype, each value that is not finite moved to a tensor of its own.

    DDQ R-CNN's loss is infinite where a batch has no object at all: that, too, has to be the same. So
    ``name`` gets a 0 there and ``name.nonfinite`` says which: 1 for NaN, 2 and 3 for plus and minus infinity.
    """
    split: Tensors = {}
    for name, tensor in tensors.items():
        tensor = tensor.cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(dtype)
            if not bool(tensor.isfinite().all()):
                infinite = 2 * (tensor == math.inf).long() + 3 * (tensor == -math.inf).long()
                split[f"{name}.nonfinite"] = tensor.isnan().long() + infinite
                tensor = torch.where(tensor.isfinite(), tensor, torch.zeros_like(tensor))
        split[name] = tensor
    return split


def _append(whole: Run, run: Run, label: str) -> None:
    """Add a step to a trajectory: sketches of its tensors, the choices, the draws, in the order of the stages."""
    added: Dict[str, torch.Tensor] = {}
    for stage, names in run.produced.items():
        for name in names:
            tensor, full_name = run.tensors[name], f"{label}{stage}.{name}"
            keep = name in run.rows or tensor.numel() <= TRAJECTORY_WIDTH or not tensor.is_floating_point()
            added[full_name] = tensor if keep or name.startswith("draw.") else sketch(name, tensor, TRAJECTORY_WIDTH)
            if name in run.rows:
                whole.rows[full_name] = run.rows[name]
    added.update({label + name: _choice(decision) for name, decision in run.decisions.items()})
    whole.tensors.update(added)
    whole.produced[TRAJECTORY] = (*whole.produced.get(TRAJECTORY, ()), *added)
    whole.islands = run.islands


def _choice(decision: Decision) -> torch.Tensor:
    """Return what was chosen; of a matching, whose order says which of equal objects each pair is about, the pairs."""
    return decision.chosen.sort().values if decision.kind == ASSIGNMENT else decision.chosen
