"""Full-val AP of one case: legacy and new engine predict, one evaluator judges both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from parity.ap.committed import drawn_coco, freeze, read_committed
from parity.ap.evaluate import Annotations
from parity.ap.progress import Progress
from parity.ap.result import ApResult, judge
from parity.ap.run import Image, Run
from parity.ap.settings import Settings
from parity.ap.subject import IMAGES, Subject, images_of, make_run
from parity.ap.teams import Spawned, Team, Torchrun, complete, gpu_names, torchrun_device, under_torchrun
from parity.ap.weights import remarks_of, weights_of
from parity.errors import ParityError

Say = Callable[[str], None] | None


def full_ap(subject: Subject, settings: Settings, *, say: Say = None) -> ApResult:
    """Predict with both engines and judge; under torchrun, every process returns what that of rank 0 found.

    Raises:
        ParityError: something does not fit, or images cannot be predicted.
    """
    team = _team(settings)
    images, weights = team.agree(lambda: _prepared(subject, settings))
    notes = remarks_of(weights[subject.case.legacy])
    for engine in (subject.case.legacy, subject.case.new):
        if engine == subject.case.new or subject.python:
            notes += predict(make_run(subject, engine, weights[engine], images, settings), team, settings, say=say)
    return team.agree(lambda: _judged(subject, weights, images, settings, notes))


def freeze_legacy(subject: Subject, settings: Settings, *, say: Say = None) -> Path:
    """Predict with the legacy engine, and keep that as what is committed."""
    if not (subject.shipped and subject.python):
        raise ParityError(f"--freeze is for small cases and needs --legacy-root; {subject.case.id} has what it has")
    images, weights = _prepared(subject, settings)
    run = make_run(subject, subject.case.legacy, weights[subject.case.legacy], images, settings)
    predict(run, _team(settings), settings, say=say)
    from parity.engines.host import RemoteSession

    with RemoteSession(subject.case.legacy, python=subject.python, root=subject.root) as legacy:
        return freeze(subject, run.complete_predictions(), legacy.fingerprint())


def predict(run: Run, team: Team, settings: Settings, *, say: Say = None) -> list[str]:
    """Complete a run; return what failed on the way."""
    with ExitStack() as stack:
        lock, thrown_away = team.agree(lambda: _opened(run, stack))
        if isinstance(team, Spawned):
            team = Spawned(_devices(settings), held=lock)
        if not team.leads:
            say = _nothing
        if thrown_away:
            (say or _to_stderr)(f"{run.folder}: predictions of other weights, data or code were thrown away")
        title = f"{run.job.case}, {run.job.engine}"
        progress = Progress(run.folder, total=len(run.images), title=title, say=say)
        failures = complete(run, team, progress)
        progress.close()
    return [f"{run.job.engine}: {failure}; its images were done by others" for failure in failures]


def _nothing(line: str) -> None:
    """Say nothing: the leading process speaks for all."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _opened(run: Run, stack: ExitStack) -> tuple[int, bool]:
    """Lock and open the run; return the descriptor that holds the lock, and whether something was thrown away."""
    lock = stack.enter_context(run.locked())
    return lock, run.open()


def _team(settings: Settings) -> Team:
    return Torchrun(torchrun_device(settings.gpus)) if under_torchrun() else Spawned(_devices(settings))


def _devices(settings: Settings) -> list[str]:
    return gpu_names(settings.gpus) if settings.gpus else [""] * settings.processes


def _prepared(subject: Subject, settings: Settings) -> tuple[list[Image], dict[str, Path]]:
    if subject.shipped:
        drawn_coco(subject)
    names = Annotations(subject.annotations, images=subject.coco / IMAGES).images
    return images_of(subject, names), weights_of(subject, settings)


def _judged(
    subject: Subject, weights: dict[str, Path], images: list[Image], settings: Settings, notes: list[str]
) -> ApResult:
    case = subject.case
    new = make_run(subject, case.new, weights[case.new], images, settings).complete_predictions()
    if subject.python:
        legacy = make_run(subject, case.legacy, weights[case.legacy], images, settings).complete_predictions()
    else:
        legacy, made = read_committed(subject)
        notes = [*notes, made]
    annotations = Annotations(subject.annotations)
    return judge(
        case,
        new,
        legacy,
        annotations,
        files={image.id: image.path for image in images},
        reported=settings.reported.get(case.id, case.reported_ap) or None,
        data=str(subject.coco),
        notes=(*notes, *annotations.notes),
    )
