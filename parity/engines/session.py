"""One engine at work on one case: the same code in the new interpreter and in the legacy one."""

from __future__ import annotations

import importlib
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from parity.cases.base import PREPROCESS, Case, Stage
from parity.cases.patterns import build
from parity.cases.registry import find_case
from parity.engines.base import Engine
from parity.taps.decisions import Decision, DecisionTaps
from parity.taps.islands import IslandTaps, Promote
from parity.taps.stages import StageTaps, resolve
from parity.weights import synthetic

ENGINES = {
    "mmdet3": ("parity.engines.mmdet3", "Mmdet3Engine"),
    "ddq_mmdet2": ("parity.engines.ddq_mmdet2", "DdqMmdet2Engine"),
    "ddq_mmdet3rc": ("parity.engines.ddq_mmdet3rc", "DdqMmdet3rcEngine"),
}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
Tensors = Dict[str, torch.Tensor]
Shapes = Dict[str, List[int]]


@dataclass
class Run:
    """What one run gave.

    Attributes:
        tensors: name -> value on the CPU, inputs of the replayed stage left out.
        decisions: name -> what was chosen, from what.
        islands: (stage, site, count) of every float32 request in a float64 run.
        produced: stage -> names it wrote.
    """

    tensors: Tensors
    decisions: Dict[str, Decision] = field(default_factory=dict)
    islands: List[Tuple[str, str, int]] = field(default_factory=list)
    produced: Dict[str, Tuple[str, ...]] = field(default_factory=dict)


def make_engine(name: str, *, root: str = "", device: str = "cpu") -> Engine:
    """Return the engine's adapter; importing it imports its framework."""
    module, attribute = ENGINES[name]
    engine: Engine = getattr(importlib.import_module(module), attribute)(root, device)
    return engine


class Session:
    """Holds one engine and one built model, and runs whole detectors or single stages of it."""

    def __init__(self, engine: str, *, root: str = "", device: str = "cpu") -> None:
        self.engine = make_engine(engine, root=root, device=device)
        self.case: Optional[Case] = None
        self.model: Any = None
        self.dtype = torch.float64

    def fingerprint(self) -> Dict[str, str]:
        return self.engine.fingerprint()

    def load(self, case_id: str, dtype: str) -> Shapes:
        """Build the case's detector; return name -> shape of every parameter and buffer to be filled."""
        self.case = find_case(case_id)
        self.dtype = DTYPES[dtype]
        with self._dtype():  # constants that a constructor makes (the pixel mean) have the run's dtype
            self.model = self.engine.build(self.case, self.dtype)
        return {name: list(tensor.shape) for name, tensor in self._fillable().items()}

    def fill(self, seed: int, fills: Sequence[Mapping[str, Any]] = ()) -> str:
        """Fill the model with synthetic weights by its own names; return their fingerprint.

        ``fills`` are rules, as dictionaries, that go before those of the case.
        """
        assert self.case is not None
        shapes = {name: tuple(tensor.shape) for name, tensor in self._fillable().items()}
        rules = synthetic.rules_of(self.case, fills)
        state = synthetic.state_dict(shapes, seed=seed, rules=rules)
        self.load_state(state)
        return synthetic.fingerprint(state)

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put values into the model, which has to have exactly these names to be filled.

        In place: mmdet 2 renames keys of a state dict that comes without metadata.
        """
        targets = self._fillable()
        if state.keys() != targets.keys():
            raise KeyError(f"state and model differ in {sorted(state.keys() ^ targets.keys())[:5]}")
        with torch.no_grad():
            for name, tensor in targets.items():
                tensor.copy_(state[name])

    def constants(self) -> Dict[str, str]:
        """Return name -> SHA-256 of the buffers that a constructor makes for good (Swin's index tables)."""
        fillable = self._fillable()
        state = {name: tensor for name, tensor in self.model.state_dict().items() if name not in fillable}
        return {name: synthetic.fingerprint({name: tensor.cpu()}) for name, tensor in state.items()}

    def _fillable(self) -> Tensors:
        return {
            name: tensor
            for name, tensor in self.model.state_dict().items()
            if tensor.is_floating_point() or name.endswith("num_batches_tracked")
        }

    def configure(self, threads: int, onednn: bool) -> None:
        """Set what float32 noise depends on."""
        torch.set_num_threads(threads)
        torch.backends.mkldnn.flags(enabled=onednn).__enter__()

    def preprocess(self, files: Sequence[bytes], scale: Sequence[int]) -> Run:
        """Run the stage before the model: decode, resize, normalise, pad."""
        with self._dtype():
            assert self.case is not None
            tensors = self.engine.preprocess(self.case, self.model, files, (scale[0], scale[1]))
        return Run(_on_cpu(tensors), produced={PREPROCESS: tuple(tensors)})

    def bare(self, batch: Mapping[str, torch.Tensor]) -> Tensors:
        """Run the detector from ``image`` and metas without any tap; return its final tensors."""
        with torch.no_grad(), self._dtype():
            results = self.engine.predict(self.model, self._placed(batch["image"]), batch)
        return _on_cpu(self.engine.final_tensors(results))

    def time_forwards(self, batch: Mapping[str, torch.Tensor], repeats: int) -> Dict[str, List[float]]:
        """Return the seconds of bare and of tapped forwards, taken in turn so that both meet the same machine."""
        seconds: Dict[str, List[float]] = {"bare": [], "tapped": []}
        for _ in range(repeats):
            for name, forward in (("bare", self.bare), ("tapped", self.cascade)):
                start = time.perf_counter()
                forward(batch)
                seconds[name].append(time.perf_counter() - start)
        return seconds

    def cascade(
        self,
        batch: Mapping[str, torch.Tensor],
        *,
        forced: Optional[Mapping[str, torch.Tensor]] = None,
        promote: Promote = True,
    ) -> Run:
        """Run the whole detector from ``image`` and metas, tapped at every stage."""
        assert self.case is not None
        with self._tapped(self.case.stages_of(self.engine.name), forced, promote) as (stages, decisions, islands):
            self.engine.predict(self.model, self._placed(batch["image"]), batch)
        return self._run(stages, decisions, islands)

    def replay(
        self,
        stage_name: str,
        inputs: Mapping[str, torch.Tensor],
        *,
        forced: Optional[Mapping[str, torch.Tensor]] = None,
        promote: Promote = True,
        absent: Sequence[str] = (),
    ) -> Run:
        """Run one stage on the given inputs (its tensors, its state and the batch's metas).

        ``absent`` names inputs that this engine is called without (``None``).
        """
        assert self.case is not None
        stage = self.case.stage(stage_name, self.engine.name)
        known = {name: self._placed(tensor) for name, tensor in inputs.items()}
        for name in stage.reads_state:
            self.engine.state()[name][1](self.model, known[name])
        with self._tapped((stage,), forced, promote) as (stages, decisions, islands):
            for call in stage.calls:
                self._call(call, {**known, **stages.tensors}, inputs, absent)
        run = self._run(stages, decisions, islands)
        run.tensors = {name: run.tensors[name] for name in run.produced[stage_name]}
        return run

    def _call(self, call: Any, known: Tensors, inputs: Mapping[str, torch.Tensor], absent: Sequence[str]) -> None:
        def lookup(name: str) -> Any:
            # A call earlier in the stage may have written None: mmdet 3.3 does without a mask at times.
            return None if name in absent else known.get(name)

        arguments = build(
            call.reads,
            lookup,
            samples=self.engine.samples(inputs) if "img_shape" in inputs else None,
            metas=self.engine.meta_dicts(inputs) if "img_shape" in inputs else None,
            stack=torch.stack,
        )
        owner, attribute = resolve(self.model, call.path)
        getattr(owner, attribute)(**arguments)

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Put a tensor where the model is, in its dtype; a clone, since stages may work in place."""
        if tensor.is_floating_point():
            tensor = tensor.to(self.dtype)
        return tensor.to(self.engine.device).clone()

    @contextmanager
    def _dtype(self) -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    @contextmanager
    def _tapped(self, stages: Sequence[Stage], forced: Any, promote: Promote) -> Iterator[Any]:
        with ExitStack() as stack:
            enter = stack.enter_context
            enter(torch.no_grad())
            enter(self._dtype())
            taps = enter(StageTaps(self.model, stages, self.engine.state()))
            decisions = enter(DecisionTaps(lambda: taps.stage, forced))
            islands = None
            if self.dtype is torch.float64:
                islands = enter(IslandTaps(lambda: taps.stage, promote=promote))
            yield taps, decisions, islands

    def _run(self, stages: StageTaps, decisions: DecisionTaps, islands: Optional[IslandTaps]) -> Run:
        found = islands.found if islands is not None else {}
        for decision in decisions.decisions.values():
            decision.scores, decision.chosen = decision.scores.cpu(), decision.chosen.cpu()
            decision.boxes = None if decision.boxes is None else decision.boxes.cpu()
        return Run(
            _on_cpu(stages.tensors),
            decisions.decisions,
            [(stage, site, count) for (stage, site), count in sorted(found.items())],
            dict(stages.produced),
        )


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}
