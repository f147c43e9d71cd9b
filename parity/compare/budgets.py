"""How far a tensor may be off: one table of multiples of its noise floor, and nothing per tensor."""

from __future__ import annotations

from dataclasses import dataclass

# The unit roundoff: what writing a number down in the format costs at most, relative to its size.
ROUNDOFF = {"fp32": 2.0**-24, "fp64": 2.0**-53}


@dataclass(frozen=True)
class Row:
    """One row of the table: multiples of the noise floor, and where they come from."""

    multiple: float
    source: str


# (dtype, mode) -> row. "Isolated" noise is that of one stage fed the truth, "cascade" that of the whole run.
TABLE = {
    ("fp64", "isolated"): Row(9000.0, "1e-12 of the truth's size: 9,000 roundoffs; correct engines reach 20 to 100"),
    ("fp64", "cascade"): Row(9000.0, "the same: in float64 the errors of earlier stages stay far below it"),
    ("fp32", "isolated"): Row(
        8.0, "other kernels, other summation orders: up to 4.3 measured over all committed records"
    ),
    ("fp32", "cascade"): Row(8.0, "the same; the decisions are forced, so that noise stays noise"),
}


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


def allowance(dtype: str, mode: str, *, expected_max: float, expected_rms: float, measured: Noise | None) -> Allowance:
    """Return the allowance of one tensor.

    The noise floor is never below what rounding the truth itself to the run's format costs. In float64
    that is all of it; in float32 the recorded noise comes on top.

    Args:
        dtype: ``fp32`` or ``fp64``, of the run that is judged.
        mode: ``isolated`` or ``cascade``.
        expected_max, expected_rms: size of the truth.
        measured: the recorded float32 noise; ``None`` for values that are exact, such as indices.
    """
    unit = ROUNDOFF[dtype]
    floor = Noise(unit * expected_max, unit * expected_rms)
    if dtype == "fp32" and measured is not None:
        floor = Noise(max(floor.max, measured.max), max(floor.rms, measured.rms))
    return Allowance(TABLE[dtype, mode].multiple, floor)
