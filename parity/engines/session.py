"""One engine at work on one case: the same code in the new interpreter and in the legacy one."""

from __future__ import annotations

import gc
import importlib
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Type

import torch
from safetensors.numpy import load_file

from parity.cases.base import PREPROCESS, Case, Stage
from parity.cases.patterns import build
from parity.cases.registry import find_case
from parity.engines import group, numerics, training
from parity.engines.base import Engine, Run
from parity.engines.detector import Detector
from parity.engines.limits import limits_of
from parity.engines.numerics import Numerics, Settings, Value
from parity.errors import ParityError
from parity.taps.decisions import DecisionTaps
from parity.taps.islands import IslandTaps, Promote
from parity.taps.modules import ModuleTaps, describe, described
from parity.taps.stages import StageTaps, resolve
from parity.weights import synthetic

ENGINES = {
    "mmdet3": ("parity.engines.mmdet3", "Mmdet3Engine"),
    "mmdet3_compiled": ("parity.engines.mmdet3_compiled", "Mmdet3CompiledEngine"),
    "mmdet2": ("parity.engines.mmdet2", "Mmdet2Engine"),
    "ddq_mmdet2": ("parity.engines.ddq_mmdet2", "DdqMmdet2Engine"),
    "ddq_mmdet3rc": ("parity.engines.ddq_mmdet3rc", "DdqMmdet3rcEngine"),
}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
Tensors = Dict[str, torch.Tensor]
Shapes = Dict[str, List[int]]


def make_engine(name: str, *, root: str = "", device: str = "cpu") -> Engine:
    """Return the engine's adapter; its framework is imported when it builds."""
    return engine_class(name)(root, device)


def engine_class(name: str) -> Type[Engine]:
    """Return the class of an engine's adapter; that needs nothing of its framework."""
    if name not in ENGINES:
        raise ParityError(f"unknown engine {name!r}; there are {', '.join(sorted(ENGINES))}")
    module, attribute = ENGINES[name]
    found: Type[Engine] = getattr(importlib.import_module(module), attribute)
    return found


class Session:
    """Holds one engine and one built model, and runs whole detectors or single stages of it."""

    def __init__(self, engine: str, *, root: str = "", device: str = "cpu") -> None:
        self.engine = make_engine(engine, root=root, device=device)
        self.case: Optional[Case] = None
        self.model: Any = None
        self.dtype = torch.float64
        self._modules: Optional[ModuleTaps] = None
        self._batches: Iterator[Any] = iter(())
        self._detector: Optional[Detector] = None
        self._numerics = Numerics()
        self._planted = ExitStack()

    def close(self) -> None:
        """Let go of the model, and put the settings back that ``configure`` changed."""
        self.model = self._detector = None
        self.restore()

    def fingerprint(self) -> Dict[str, str]:
        return self.engine.fingerprint()

    def load(self, case_id: str, dtype: str, *, as_shipped: bool = False) -> Shapes:
        """Build the case's detector; return name -> shape of every parameter and buffer to be filled.

        ``as_shipped`` leaves the case's options out of its config.
        """
        self.model = None
        gc.collect()  # detectors hold themselves in cycles, and two of Swin-L with their gradients are too many
        case = find_case(case_id)
        self.case = replace(case, options={}) if as_shipped else case
        self.dtype = DTYPES[dtype]
        with self._dtype():  # constants that a constructor makes (the pixel mean) have the run's dtype
            self.model = self.engine.build(self.case, self.dtype)
        self._detector = None
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

    def read_weights(self, path: str) -> str:
        """Put the weights of a safetensors file into the model; return their fingerprint."""
        state = {name: torch.from_numpy(array) for name, array in load_file(path).items()}
        self.load_state(state)
        return synthetic.fingerprint(state)

    def detect(self, paths: Sequence[str], ahead: Sequence[str] = ()) -> Run:
        """Run the detector on image files, as its framework tests it: ``boxes[i]``, ``scores[i]``, ``labels[i]``."""
        if self._detector is None:
            assert self.case is not None
            self._detector = Detector(self.engine, self.case, self.model)
        with self._dtype():
            return Run(self._detector.detect(paths, ahead))

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

    def configure(self, **asked: Value) -> Settings:
        """Put numerical settings in force until ``restore``; return all of them as read back (see ``numerics``).

        Raises:
            ParityError: there is no such setting, or one is not what it was set to.
        """
        return self._numerics.put(asked)

    def restore(self) -> Settings:
        """Put the settings back that ``configure`` changed; return all of them as read back."""
        self._numerics.restore()
        return numerics.read()

    def preprocess(self, files: Sequence[bytes], scale: Sequence[int]) -> Run:
        """Run the stage before the model: decode, resize, normalise, pad."""
        with self._dtype():
            assert self.case is not None
            tensors = self.engine.preprocess(self.case, self.model, files, (scale[0], scale[1]))
        return Run(_on_cpu(tensors), produced={PREPROCESS: tuple(tensors)})

    def bare(self, batch: Mapping[str, torch.Tensor]) -> Tensors:
        """Run the detector from ``image`` and metas without any tap; return its final tensors."""
        with torch.no_grad(), self._dtype():
            results = self.engine.predict(self.model, self.placed(batch["image"]), batch)
        return _on_cpu(self.engine.final_tensors(results))

    def observe(self, batch: Mapping[str, torch.Tensor], paths: Sequence[str]) -> List[Dict[str, Any]]:
        """Run the detector and describe its calls of the methods at ``paths`` (see ``taps.observe``)."""
        from parity.taps.observe import Observer

        image = self.placed(batch["image"])
        with torch.no_grad(), self._dtype(), Observer(self.model, paths, image) as observer:
            self.engine.predict(self.model, image, batch)
        return observer.calls

    def left_out(self, batch: Mapping[str, torch.Tensor], paths: Sequence[str]) -> List[str]:
        """Run the detector; return the parts that run outside of the calls at ``paths`` (see ``taps.coverage``)."""
        from parity.taps.coverage import Coverage

        with torch.no_grad(), self._dtype(), Coverage(self.model, paths) as coverage:
            self.engine.predict(self.model, self.placed(batch["image"]), batch)
        return coverage.left_out()

    def watch_modules(self, stage: str) -> Dict[str, Dict[str, str]]:
        """Watch the modules in the next run of a stage; return path -> class and source of all."""
        self._modules = ModuleTaps(self.model, stage)
        return describe(self.model)

    def module_events(self) -> List[Dict[str, Any]]:
        """Return what was watched, in order, and watch no longer."""
        watched, self._modules = self._modules, None
        return watched.events if watched is not None else []

    def call_owners(self, stage: str) -> List[Dict[str, str]]:
        """Return path, class and source of the methods that a stage consists of."""
        assert self.case is not None
        found = []
        for call in self.case.stage(stage, self.engine.name).calls:
            owner, attribute = resolve(self.model, call.path)
            kind = type(owner) if isinstance(owner, torch.nn.Module) else owner
            found.append({"path": call.path, **described(kind, attribute)})
        return found

    def time_forwards(self, batch: Mapping[str, torch.Tensor], repeats: int) -> Dict[str, List[float]]:
        """Return the seconds of bare and of tapped forwards, taken in turn so that both meet the same machine."""
        seconds: Dict[str, List[float]] = {"bare": [], "tapped": []}
        for _ in range(repeats):
            for name, forward in (("bare", self.bare), ("tapped", self.cascade)):
                start = time.perf_counter()
                forward(batch)
                seconds[name].append(time.perf_counter() - start)
        return seconds

    def limits(self, case_id: str) -> Dict[str, float]:
        """Return key -> number of every limit in the case's config; it needs no detector loaded before."""
        return limits_of(self.engine.config(find_case(case_id)))

    def recipe(self, case_id: str, stage: str, **arguments: Any) -> Run:
        """Run one stage of a case's recipe (see ``engines.recipe``); it needs no detector loaded before."""
        from parity.engines import recipe

        return recipe.run(self.engine, find_case(case_id), stage, arguments)

    def open_loader(self, case_id: str, data_root: str, seed: int, options: Sequence[str]) -> None:
        """Begin to read a case's training batches by the engine's own loader."""
        self._batches = iter(self.engine.batches(find_case(case_id), data_root=data_root, seed=seed, options=options))

    def next_batch(self) -> Run:
        """Return the next batch of the loader that was opened."""
        return Run(_on_cpu(next(self._batches)))

    def cascade(
        self,
        batch: Mapping[str, torch.Tensor],
        *,
        forced: Optional[Mapping[str, torch.Tensor]] = None,
        promote: Promote = True,
    ) -> Run:
        """Run the whole detector from ``image`` and metas, tapped at every stage."""
        assert self.case is not None
        with self.tapped(self.case.stages_of(self.engine.name), forced, promote) as (stages, decisions, islands):
            self.engine.predict(self.model, self.placed(batch["image"]), batch)
        return self.collected(stages, decisions, islands)

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
        known = {name: self.placed(tensor) for name, tensor in inputs.items()}
        for name in stage.reads_state:
            self.engine.state()[name][1](self.model, known[name])
        with self.tapped((stage,), forced, promote) as (stages, decisions, islands):
            for call in stage.calls:
                self._call(call, {**known, **stages.tensors}, inputs, absent)
        run = self.collected(stages, decisions, islands)
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
            attribute=lambda path: getattr(*resolve(self.model, path)),
            instances=self.engine.instances,
        )
        owner, attribute = resolve(self.model, call.path)
        getattr(owner, attribute)(**arguments)

    def placed(self, tensor: torch.Tensor) -> torch.Tensor:
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

    def join_group(self, rank: int, size: int, file: str, seconds: float) -> None:
        """Train as one of several processes from now on (see ``engines.group``)."""
        group.join(rank, size, file, seconds)

    def leave_group(self) -> None:
        """Train alone again."""
        group.leave()

    def plant(self, mutant: str, file: str) -> None:
        """Plant a bug in the engine for good, by its id: a built-in one, or one of a file (new interpreters only)."""
        from parity.mutants.registry import find_mutant

        self._planted.enter_context(find_mutant(mutant, file).apply())  # one that nobody holds undoes itself

    def train(self, batch: Mapping[str, torch.Tensor], **options: Any) -> Run:
        """Train on ``image``, metas and ground truth; see ``training.train``. The weights are spent afterwards."""
        return training.train(self, batch, **options)

    @contextmanager
    def tapped(
        self,
        stages: Sequence[Stage],
        forced: Any,
        promote: Promote,
        *,
        outside: Optional[str] = None,
        gradients: bool = False,
    ) -> Iterator[Any]:
        """Tap the model; ``outside`` is the stage that everything outside of the given ones belongs to."""
        with ExitStack() as stack:
            enter = stack.enter_context
            enter(torch.set_grad_enabled(gradients))
            enter(self._dtype())
            taps = enter(StageTaps(self.model, stages, self.engine.state(), outside=outside))
            decisions = enter(DecisionTaps(lambda: taps.stage, forced))
            islands = None
            if self.dtype is torch.float64:
                islands = enter(IslandTaps(lambda: taps.stage, promote=promote))
            if self._modules is not None:
                self._modules.attach(lambda: taps.stage)
                stack.callback(self._modules.detach)
            yield taps, decisions, islands

    def collected(self, stages: StageTaps, decisions: DecisionTaps, islands: Optional[IslandTaps]) -> Run:
        found = islands.found if islands is not None else {}
        for decision in decisions.decisions.values():
            decision.scores, decision.chosen = decision.scores.cpu(), decision.chosen.cpu()
            decision.boxes = None if decision.boxes is None else decision.boxes.cpu()
        produced = dict(stages.produced)
        for name, stage in stages.watch.stages.items():
            produced[stage] = (*produced.get(stage, ()), name)
        return Run(
            _on_cpu(
                {
                    **{name: value for name, value in stages.tensors.items() if not name.startswith("_")},
                    **stages.watch.found,
                }
            ),
            decisions.decisions,
            [(stage, site, count) for (stage, site), count in sorted(found.items())],
            produced,
        )


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}
