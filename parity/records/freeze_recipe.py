"""Freeze the recipe of a case: what the legacy engine sets its training up with. One function a stage.

The stages know nothing of each other, so a record gains one by being frozen again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from parity.cases.base import INITIALISATION, SCHEDULE, SETTINGS, TRAIN_IMAGES, TRAIN_PIPELINE, Case, base_name
from parity.compare.laws import laws_of, quantiles
from parity.compare.schedule import iterations_that_matter
from parity.engines.host import RemoteSession
from parity.errors import ParityError
from parity.records.digest import kept, kinds_for
from parity.records.draft import Draft
from parity.records.freeze import Frozen, freezing_environment
from parity.records.kinds import ISOLATED, RECIPE, checks_of_kind, said_of
from parity.records.layout import array_key
from parity.records.noise import Progress
from parity.records.odd_coco import ODD, WRITTEN, Odd, odd_coco
from parity.records.store import Record
from parity.taps.pipeline_draws import OTHER_MEANS

# Enough for either flip, several scales and both branches of DETR's augmentation in every case.
PIPELINE_SEED, PIPELINE_EPOCHS = 1, 2

# A stage adds its tensors to the draft; what it returns goes into the manifest.
Freezer = Callable[[Case, RemoteSession, Draft], dict[str, Any]]


def freeze_recipe(case: Case, legacy: RemoteSession, *, progress: Progress) -> Frozen:
    """Return the manifest, the entries and the tensors of a case's recipe.

    Raises:
        ParityError: the legacy engine fails, or a case declares a stage that nothing here freezes.
    """
    draft, facts = Draft(case), {}
    settings = legacy.configure(tf32=False)
    for stage in case.recipe_stages:
        if stage not in FREEZERS:
            raise ParityError(f"case {case.id}: its recipe has a stage {stage!r}, there are {', '.join(FREEZERS)}")
        progress(stage)
        facts[stage] = FREEZERS[stage](case, legacy, draft)
    manifest = {
        "case": case.id,
        "record": RECIPE,
        "engines": {"legacy": legacy.fingerprint(), "new": freezing_environment()},
        "batch": {},
        "weights": {},
        "decisions": {},
        "islands": [],
        "recipe": facts,
        **said_of(checks_of_kind(case, RECIPE), case),
        "settings": settings,
        "noise": None,  # nothing of it is a float32 run of the detector
    }
    return manifest, draft.entries, draft.tensors


def freeze_recipe_stage(case: Case, record: Record, stage: str, legacy: RemoteSession) -> Frozen:
    """Return a recipe with one stage more, or frozen anew: all entries, but the tensors of that stage alone.

    Raises:
        ParityError: the case has no such stage of its recipe, or the legacy engine fails.
    """
    if stage not in case.recipe_stages or stage not in FREEZERS:
        known = ", ".join(name for name in case.recipe_stages if name in FREEZERS)
        raise ParityError(f"--stage {stage}: the recipe of {case.id} has no such stage; it has {known}")
    draft = Draft(case)
    legacy.configure(tf32=False)
    facts = FREEZERS[stage](case, legacy, draft)
    # The record's own surroundings are those of its other stages.
    facts["engines"] = {"legacy": legacy.fingerprint(), "new": freezing_environment()}
    others = {key: entry for key, entry in record.entries.items() if entry.stage != stage}
    manifest = {**record.manifest, "recipe": {**record.manifest["recipe"], stage: facts}}
    return manifest, {**others, **draft.entries}, draft.tensors


def freeze_settings(case: Case, legacy: RemoteSession, draft: Draft) -> dict[str, Any]:
    """Keep what the legacy engine's config says, and what is in force of it, as texts."""
    texts = legacy.recipe(case.id, SETTINGS).tensors
    add_outputs(draft, SETTINGS, texts, needed_whole=texts)
    return {}


def freeze_schedule(case: Case, legacy: RemoteSession, draft: Draft) -> dict[str, Any]:
    """Keep the rates where they matter whole, and of all of them samples and block sums."""
    rates = legacy.recipe(case.id, SCHEDULE).tensors
    iterations = iterations_that_matter(rates["learning_rate"], int(rates["epoch_length"]))
    draft.add(f"{SCHEDULE}/iterations", iterations, name="iterations", stage=SCHEDULE, role="input", modes=(ISOLATED,))
    whole = {**rates, "learning_rate_at": rates["learning_rate"][iterations]}
    add_outputs(draft, SCHEDULE, whole, needed_whole=("learning_rate_at",))
    return {"iterations": len(rates["learning_rate"])}


def freeze_train_pipeline(
    case: Case,
    legacy: RemoteSession,
    draft: Draft,
    *,
    stage: str = TRAIN_PIPELINE,
    images: Sequence[Odd] = ODD,
    epochs: int = PIPELINE_EPOCHS,
) -> dict[str, Any]:
    """Keep the image files, the annotations, and what the legacy engine makes of them with which draws."""
    files, annotations = odd_coco(PIPELINE_SEED, images)
    settings = {"epochs": epochs, "seed": PIPELINE_SEED}
    run = legacy.recipe(case.id, stage, files=files, annotations=annotations, **settings)
    _require_recorded(run.tensors)
    inputs = [(f"file[{index}]", "image", content) for index, content in enumerate(files)]
    for name, role, content in (*inputs, ("annotations", "annotations", annotations)):
        tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        draft.add(f"{stage}/{name}", tensor, name=name, stage=stage, role=role)
    add_outputs(draft, stage, run.tensors, needed_whole=run.tensors)
    return settings


def _require_recorded(tensors: Mapping[str, Tensor]) -> None:
    """Raise ``ParityError`` where a transform draws what no other engine can be made to draw."""
    for name, table in tensors.items():
        if base_name(name) == "draws" and OTHER_MEANS in map(tuple, table.tolist()):
            raise ParityError(
                f"the legacy pipeline drew, in {name}, by other means than one numpy.random.choice or randint at a"
                " time: such a draw is not recorded; parity/taps/pipeline_draws.py has to learn it"
            )


def add_outputs(draft: Draft, stage: str, outputs: Mapping[str, Tensor], *, needed_whole: Collection[str] = ()) -> None:
    """Add what a stage gave to the draft, whole or digested."""
    for name, tensor in outputs.items():
        for kind in kinds_for(tensor, needed_whole=name in needed_whole):
            key, part = array_key(stage, name, kind), kept(kind, name, tensor)
            draft.add(key, part, name=name, stage=stage, role="output", kind=kind, modes=(ISOLATED,), of=tensor)


def freeze_initialisation(case: Case, legacy: RemoteSession, draft: Draft) -> dict[str, Any]:
    """Keep the law of every parameter's initial values: moments, and quantiles of what is random."""
    seeds = list(range(case.initial_seeds))
    tables = legacy.recipe(case.id, INITIALISATION, seeds=seeds).tensors
    laws = laws_of(tables, seeds=len(seeds), sample="samples")
    outputs = {name: tensor for name, tensor in tables.items() if name != "samples"}
    outputs["quantiles"] = quantiles(laws)
    add_outputs(draft, INITIALISATION, outputs, needed_whole=outputs)
    return {"seeds": seeds, "parameters": len(laws)}


FREEZERS: dict[str, Freezer] = {
    SCHEDULE: freeze_schedule,
    INITIALISATION: freeze_initialisation,
    TRAIN_PIPELINE: freeze_train_pipeline,
    TRAIN_IMAGES: partial(freeze_train_pipeline, stage=TRAIN_IMAGES, images=WRITTEN, epochs=1),
    SETTINGS: freeze_settings,
}
