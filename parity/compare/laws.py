"""Whether two engines draw a parameter's initial values from one law, told from tables of several seeds.

Each test bounds a p-value; the bound's negated logarithm is the *evidence*. A mean or deviation ``z`` standard errors
off: exp(-z²/2), as far as sums of 512 values and more without outliers are normal. Distribution functions of two
samples of n values that lie ``d`` apart: e · exp(-n d²), exactly (Wei and Dudley 2012, the two-sample form of
Dvoretzky, Kiefer and Wolfowitz). Outliers, ``a`` in one engine and ``b`` in the other:
2 · exp(-(a - b)² / 2(a + b)), exactly (Hoeffding, each falling to either engine alike). The evidence is compared
with one threshold for all parameters, so that the chance of any false alarm in a check stays below FALSE_ALARMS
(Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from parity.compare.verdicts import Verdict
from parity.engines.initialisation import COLUMNS, CONSTANT, FIXED, MOMENTS, RANDOM, SAMPLES
from parity.report.results import TensorResult

FALSE_ALARMS = 1e-4  # chance that a check of one detector names any parameter whose law is the same
QUANTILES = 32  # of a random parameter's sample, that a record keeps
SAME_VALUE = 1e-6  # relative: constants are float32, and torch's cosine changed in its last digit
ENOUGH_FOR_MOMENTS = 512  # values; below, a mean's law may be far from normal and only the samples are compared
KIND = "law"


@dataclass(frozen=True)
class Law:
    """One parameter's initial values over all seeds.

    Attributes:
        same_as: the first parameter that has the very same random values; ``shared_with``: that is the same tensor.
        count: values over all seeds that mean and deviation are of; ``sampled``: those that the sample is of.
        sample: float32, ascending: fixed values in their own order, or (a part of) the random sample.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    same_as: str
    shared_with: str
    minimum: float
    maximum: float
    mean: float
    deviation: float
    kurtosis: float
    outliers: float
    count: int
    sampled: int
    sample: Tensor

    def __str__(self) -> str:
        if self.kind == CONSTANT:
            return f"constant {self.mean:.6g}"
        if self.kind == FIXED:
            return f"the same values for every seed (mean {self.mean:.4g}, deviation {self.deviation:.4g})"
        outliers = f" and {self.outliers:.0f} outliers" if self.outliers else ""
        return f"{self.family} of mean {self.mean:.4g}, deviation {self.deviation:.4g}{outliers}"

    @property
    def family(self) -> str:
        """The usual family that the fourth moment and the range speak for."""
        if not self.deviation:
            return "random, mostly one value,"
        reach = float((self.sample - self.mean).abs().max()) / self.deviation
        if abs(self.kurtosis - 1.8) < 0.15 and reach < 1.8:
            return "uniform"
        if abs(self.kurtosis - 3.0) < 0.4:
            return "normal" if reach > 2.5 else "truncated normal"
        return f"random (kurtosis {self.kurtosis:.3g})"


def laws_of(tables: Mapping[str, Tensor], *, seeds: int, sample: str) -> dict[str, Law]:
    """Return name -> law, from the tables of ``engines.initialisation``.

    Args:
        tables: as that module or a record gives them.
        seeds: how many seeds they are of.
        sample: the table of random values: ``samples`` of a run, ``quantiles`` of a record.
    """
    lines = [line.rsplit(" ", 1) for line in plain_text(tables["names"]).split("\n")]
    names = [name for name, _ in lines]
    begin = {FIXED: 0, RANDOM: 0}
    laws = {}
    for (name, shape), row in zip(lines, tables["law"], strict=True):
        kind, same, shared = (int(number) for number in row[:3])
        count = math.prod(_sizes(shape))
        sampled = min(count, SAMPLES)
        length = {CONSTANT: 0, FIXED: sampled, RANDOM: QUANTILES if sample == "quantiles" else sampled * seeds}[kind]
        source = tables["fixed" if kind == FIXED else sample].reshape(-1)
        start = begin.get(kind, 0)
        begin[kind] = start + length
        laws[name] = Law(
            name,
            _sizes(shape),
            kind,
            names[same],
            names[shared],
            **dict(zip(COLUMNS[3:], row[3:].tolist(), strict=True)),
            count=min(count, MOMENTS) * seeds,
            sampled=sampled * seeds,
            sample=source[start : start + length],
        )
    return laws


def _sizes(shape: str) -> tuple[int, ...]:
    return tuple(int(size) for size in shape.split("x") if size)


def plain_text(tensor: Tensor) -> str:
    """Return the text that a run or a record carries as uint8."""
    return bytes(tensor.tolist()).decode()


def compare_texts(name: str, actual: Tensor, expected: Tensor) -> TensorResult:
    """Compare two texts that are carried as uint8, exactly."""
    words = plain_text(actual), plain_text(expected)
    if words[0] == words[1]:
        return TensorResult(name, Verdict.EQUAL, tuple(expected.shape), kind=KIND, note=words[1])
    note = f"{words[0]!r}, expected {words[1]!r}"
    return TensorResult(name, Verdict.DIVERGED, tuple(expected.shape), minimum_budget=math.inf, kind=KIND, note=note)


def quantiles(laws: Mapping[str, Law]) -> Tensor:
    """Return what a record keeps of the random samples: float32 (R, QUANTILES), least and greatest value included."""
    kept = [law.sample[_ranks(law.sampled)] for law in laws.values() if law.kind == RANDOM]
    return torch.stack(kept) if kept else torch.zeros(0, QUANTILES)


def _ranks(count: int) -> Tensor:
    return torch.linspace(0, count - 1, QUANTILES, dtype=torch.float64).round().long()


def compare_laws(actual: Mapping[str, Law], expected: Mapping[str, Law]) -> tuple[TensorResult, ...]:
    """Judge every parameter: those whose laws differ by name, the others as one result for each kind."""
    threshold = math.log(len(EVIDENCE) * max(1, sum(law.kind == RANDOM for law in expected.values())) / FALSE_ALARMS)
    found = [_compare(actual.get(name), law, threshold) for name, law in expected.items()]
    extra = [
        TensorResult(name, Verdict.EXTRA, law.shape, kind=KIND, note=str(law))
        for name, law in actual.items()
        if name not in expected
    ]
    same = [result for result in found if result.verdict.passes]
    return (*_summaries(same, expected), *(result for result in found if not result.verdict.passes), *extra)


def _summaries(same: list[TensorResult], expected: Mapping[str, Law]) -> Iterator[TensorResult]:
    """Yield one result for all parameters of a kind that agree: the one that came nearest to its limit."""
    for kind, title in ((CONSTANT, "constant"), (FIXED, "the same for every seed"), (RANDOM, "random")):
        group = [result for result in same if expected[result.name].kind == kind]
        if group:
            worst = max(group, key=lambda result: result.severity)
            yield TensorResult(
                f"parameters: {title}",
                worst.verdict,
                (len(group),),
                budget=worst.budget,
                minimum_budget=worst.minimum_budget,
                count=len(group),
                floor_max=worst.floor_max,
                kind=KIND,
                note=f"nearest to its limit: {worst.name}, {worst.note}",
            )


def _compare(actual: Law | None, expected: Law, threshold: float) -> TensorResult:
    if actual is None:
        note = f"the new engine has no such parameter; expected {expected}"
        return TensorResult(expected.name, Verdict.MISSING, expected.shape, kind=KIND, note=note)
    if actual.shape != expected.shape:
        note = f"shape {actual.shape}, expected {expected.shape}"
        return TensorResult(expected.name, Verdict.SHAPE, expected.shape, kind=KIND, note=note)
    for relation in ("shared_with", "same_as"):
        if getattr(actual, relation) != getattr(expected, relation):
            return _diverged(expected, _relation(relation, actual, expected))
    if actual.kind != expected.kind:
        return _diverged(expected, f"{actual}, expected {expected}")
    if expected.kind == RANDOM:
        return _compare_random(actual, expected, threshold)
    return _compare_values(actual, expected)


def _diverged(expected: Law, note: str) -> TensorResult:
    return TensorResult(expected.name, Verdict.DIVERGED, expected.shape, minimum_budget=math.inf, kind=KIND, note=note)


def _relation(relation: str, actual: Law, expected: Law) -> str:
    words = "is the same tensor as" if relation == "shared_with" else "begins with the values of"

    def say(law: Law) -> str:
        other = str(getattr(law, relation))
        return "stands alone" if other == law.name else f"{words} {other}"

    return f"{say(actual)}, expected: {say(expected)}"


def _compare_values(actual: Law, expected: Law) -> TensorResult:
    """Compare what does not depend on the seed: constants, and fixed values one by one."""
    size = max(abs(expected.minimum), abs(expected.maximum))
    error = max(abs(actual.minimum - expected.minimum), abs(actual.maximum - expected.maximum))
    error = max(error, abs(actual.mean - expected.mean), abs(actual.deviation - expected.deviation))
    if expected.kind == FIXED:
        error = max(error, float((actual.sample - expected.sample).abs().max()))
    verdict = (
        Verdict.EQUAL if error == 0.0 else Verdict.WITHIN_BUDGET if error <= SAME_VALUE * size else Verdict.DIVERGED
    )
    note = "equal" if error == 0.0 else f"{actual}, expected {expected}; greatest difference {error:.3g}"
    needed = 0.0 if error == 0.0 else error / size if size else math.inf
    return TensorResult(
        expected.name,
        verdict,
        expected.shape,
        max_abs=error,
        budget=SAME_VALUE,
        minimum_budget=needed,
        kind=KIND,
        note=note,
    )


def _compare_random(actual: Law, expected: Law, threshold: float) -> TensorResult:
    found = {name: test(actual, expected) for name, test in EVIDENCE.items()}
    differing = [name for name, evidence in found.items() if evidence > threshold]
    worst = max(found.values())
    note = f"evidence {worst:.3g} of {threshold:.3g}"
    if differing:
        note = f"{actual}, expected {expected}: another {' and '.join(differing)} ({note})"
    return TensorResult(
        expected.name,
        Verdict.DIVERGED if differing else Verdict.WITHIN_BUDGET,
        expected.shape,
        max_abs=abs(actual.deviation - expected.deviation),
        budget=threshold,
        minimum_budget=max(worst, 0.0),
        kind=KIND,
        note=note,
    )


def mean_evidence(actual: Law, expected: Law) -> float:
    """Return z²/2 of the means' difference; 0 where there are too few values."""
    if expected.count < ENOUGH_FOR_MOMENTS or actual.mean == expected.mean:
        return 0.0
    if not (actual.deviation and expected.deviation):
        return math.inf
    error = math.hypot(actual.deviation, expected.deviation) / math.sqrt(expected.count)
    return ((actual.mean - expected.mean) / error) ** 2 / 2.0


def deviation_evidence(actual: Law, expected: Law) -> float:
    """Return z²/2 of the difference of the deviations' logarithms; their error comes from the fourth moment."""
    if expected.count < ENOUGH_FOR_MOMENTS or actual.deviation == expected.deviation:
        return 0.0
    if not (actual.deviation and expected.deviation):
        return math.inf
    kurtosis = max(actual.kurtosis, expected.kurtosis, 1.5)
    error = math.sqrt((kurtosis - 1.0) / 2.0 / expected.count)
    return (math.log(actual.deviation / expected.deviation) / error) ** 2 / 2.0


def distribution_evidence(actual: Law, expected: Law) -> float:
    """Return n d² - 1 of two samples of n, ``d`` being how far apart their distribution functions are at least.

    ``actual`` is the whole sample, ``expected`` its quantiles. Of the truth's function it is known only that it
    steps past each quantile's rank there, which is what equal values and small samples allow.
    """
    count = expected.sampled
    ranks = _ranks(count).double()
    ordered, points = actual.sample.contiguous(), expected.sample.contiguous()
    below = torch.searchsorted(ordered, points).double()
    up_to = torch.searchsorted(ordered, points, right=True).double()
    distance = max(float((ranks + 1 - up_to).max()), float((below - ranks).max())) / count
    return count * distance**2 - 1.0


def outlier_evidence(actual: Law, expected: Law) -> float:
    """Return what speaks against outliers being as frequent in both."""
    total = actual.outliers + expected.outliers
    return (actual.outliers - expected.outliers) ** 2 / (2.0 * total) - math.log(2.0) if total else 0.0


EVIDENCE: dict[str, Callable[[Law, Law], float]] = {
    "mean": mean_evidence,
    "deviation": deviation_evidence,
    "shape of the distribution": distribution_evidence,
    "frequency of outliers": outlier_evidence,
}
