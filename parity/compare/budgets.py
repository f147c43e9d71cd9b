"""How far a tensor may be off: one table of multiples of its noise floor, and nothing per tensor."""

from __future__ import annotations

from dataclasses import dataclass

from parity.cases.base import GRADIENTS, OPTIMIZER_STEP, TRAJECTORY

# The unit roundoff: what writing a number down in the format costs at most, relative to its size.
ROUNDOFF = {"fp32": 2.0**-24, "fp64": 2.0**-53, "tf32": 2.0**-24}


@dataclass(frozen=True)
class Row:
    """One row of the table: multiples of the noise floor, and where they come from."""

    multiple: float
    source: str
    least: float = 0.0  # the floor is at least this share of the truth's size


ANY = "any"  # whatever the mode or the kind of stage

# (arithmetic, mode or kind of stage) -> row. "Isolated" noise is that of one stage fed the truth, "cascade" that
# of the whole run.
TABLE = {
    ("fp64", "isolated"): Row(9000.0, "1e-12 of the truth's size: 9,000 roundoffs; correct engines reach 20 to 100"),
    ("fp64", "cascade"): Row(9000.0, "the same: in float64 the errors of earlier stages stay far below it"),
    ("fp32", "isolated"): Row(
        8.0, "other kernels, other summation orders: up to 2.5 measured over all committed records"
    ),
    ("fp32", "cascade"): Row(8.0, "the same, up to 3.2; the decisions are forced, so that noise stays noise"),
    ("fp64", "gradient"): Row(9000.0, "1e-12 as everywhere; correct engines reach 640 roundoffs"),
    ("fp32", "gradient"): Row(
        8.0,
        "a gradient jumps where a ReLU's input or an L1 loss's error crosses zero within noise: the legacy engine's own"
        " float32 runs differ by up to 4.2e-3 of a parameter's gradient, in 1 row of 100, whichever it happens to be;"
        " so 4e-3 passes everywhere (up to 6.4 floors measured), and float64 does the proving",
        least=5e-4,
    ),
    ("fp64", "update"): Row(
        9e6,
        "1e-9 of the parameter's size: Adam divides each gradient by its own size, which makes the rounding"
        " of one that should be zero (attention's key bias) visible; correct engines reach 2e-12",
    ),
    ("fp32", "update"): Row(8.0, "as for any other tensor, up to 3.7"),
    ("tf32", ANY): Row(
        8.0 * 2.0**13,
        "the row of float32 times 8,192: a factor of a product keeps 10 mantissa bits instead of 23. Derived from the"
        " format, not measured: there was no CUDA device to measure it on",
    ),
}
# Stages whose tensors have a row of their own, whatever the mode.
KINDS = {GRADIENTS: "gradient", OPTIMIZER_STEP: "update", TRAJECTORY: "update"}


@dataclass(frozen=True)
class Noise:
    """The legacy engine's own float32 error of one tensor: greatest and RMS, in the tensor's unit."""

    max: float
    rms: float


@dataclass(frozen=True)
class Allowance:
    """What one tensor is allowed: ``multiple`` times ``floor``, for the greatest and the RMS error alike."""

    multiple: float
    floor: Noise

    @property
    def max(self) -> float:
        """The greatest error that passes, in the tensor's unit."""
        return self.multiple * self.floor.max

    @property
    def rms(self) -> float:
        """The greatest RMS error that passes, in the tensor's unit."""
        return self.multiple * self.floor.rms

    def needed(self, *, max_abs: float, rms: float) -> float:
        """Return the smallest multiple that these errors would have passed with; 0 for no error at all."""
        return max(_times(max_abs, self.floor.max), _times(rms, self.floor.rms))


def _times(error: float, floor: float) -> float:
    if error == 0.0:
        return 0.0
    return error / floor if floor else float("inf")


def row_of(dtype: str, mode: str, *, stage: str = "") -> Row:
    """Return the row of the table that a tensor is judged by."""
    return TABLE.get((dtype, ANY)) or TABLE[dtype, KINDS.get(stage, mode)]


def allowance(
    dtype: str, mode: str, *, expected_max: float, expected_rms: float, measured: Noise | None, stage: str = ""
) -> Allowance:
    """Return the allowance of one tensor.

    The noise floor is never below what rounding the truth itself to the run's format costs. In float64
    that is all of it; in float32 the recorded noise comes on top.

    Args:
        dtype: ``fp32`` or ``fp64``, of the run that is judged; ``tf32`` for float32 with TF32 in its products.
        mode: ``isolated`` or ``cascade``.
        stage: gradients, and what comes after an update, have rows of their own.
        expected_max, expected_rms: size of the truth.
        measured: the recorded float32 noise; ``None`` for values that are exact, such as indices.
    """
    unit = ROUNDOFF[dtype]
    floor = Noise(unit * expected_max, unit * expected_rms)
    if dtype != "fp64" and measured is not None:
        floor = Noise(max(floor.max, measured.max), max(floor.rms, measured.rms))
    row = row_of(dtype, mode, stage=stage)
    floor = Noise(max(floor.max, row.least * expected_max), max(floor.rms, row.least * expected_rms))
    return Allowance(row.multiple, floor)
