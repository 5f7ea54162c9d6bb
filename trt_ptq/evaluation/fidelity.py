"""Fidelity: how close the outputs of a model are to those of its reference, accumulated batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trt_ptq._internal.quantities import format_percent
from trt_ptq.evaluation.error_energy import decibels
from trt_ptq.evaluation.joined import Joint
from trt_ptq.types import Array

_FIDELITY_OF = "fidelity of "
_BLOCK = 2**15  # values that are summed at once, so that they stay in the processor's cache


def fidelity_of(output: str) -> str:
    """What a verdict calls the fidelity of an output."""
    return f"{_FIDELITY_OF}{output}"


def output_of(fidelity: str) -> str:
    """The output of a name by `fidelity_of`."""
    return fidelity.removeprefix(_FIDELITY_OF)


def error_title(name: str) -> str:
    """The title of a column of errors by `fidelity_of`, or of losses by metric."""
    if name.startswith(_FIDELITY_OF):
        return f"error of {name.removeprefix(_FIDELITY_OF)}"
    return f"loss of {name}"


@dataclass(frozen=True)
class PartFidelity:
    """Fidelity of the slice `start`:`stop` along `axis` of an output, without its mean, which is no information."""

    axis: int
    start: int
    stop: int
    sqnr_db: float


@dataclass(frozen=True)
class OutputFidelity:
    """Fidelity of one output over all batches.

    The figures are NaN where the candidate is NaN or infinite and the reference is not, and where no value could be
    compared.

    Attributes:
        sqnr_db: signal-to-quantization-noise ratio: 10 log10(energy of the reference / energy of the error).
        cosine: cosine similarity of all reference values and all candidate values.
        top1: top-1 agreement: fraction of positions whose largest entry along the last axis is the same; None for
            outputs that do not hold scores of at least two classes.
        max_abs: largest absolute error, in the unit of the output.
        mean_abs: mean absolute error, in the unit of the output.
        compared: number of values that were compared.
        left_out: number of values that are NaN or infinite in the reference.
        changed: fraction of the values that differ, for integers and booleans; None for floats.
        worst_part: the part with the lowest SQNR, if the output joins several; see `joined_outputs`.
        answers: number of positions whose largest entries `top1` compares.
    """

    sqnr_db: float
    cosine: float
    top1: float | None
    max_abs: float
    mean_abs: float
    compared: int
    left_out: int = 0
    changed: float | None = None
    worst_part: PartFidelity | None = None
    answers: int = 0

    @property
    def error(self) -> float:
        """The error that fidelity is graded by, as a fraction.

        `noise`, or the fraction of the top-1 answers that changed, if that is larger. For integers and booleans, the
        fraction of the values that `changed`.
        """
        if self.changed is not None:
            return self.changed
        return self.noise if self.top1 is None or math.isnan(self.noise) else max(self.noise, 1 - self.top1)

    @property
    def noise(self) -> float:
        """Energy of the error / energy of the reference, 10^(-SQNR / 10), of the worst part if there are several."""
        sqnr = self.sqnr_db if self.worst_part is None else min(self.sqnr_db, self.worst_part.sqnr_db)
        return math.pow(10.0, -sqnr / 10)

    @property
    def cosine_error(self) -> float:
        """1 - cosine similarity, which candidates are ordered by; for integers the fraction that `changed`."""
        return 1 - self.cosine if self.changed is None else self.changed

    def describe(self, max_error: float) -> tuple[str, str]:
        """The fidelity in words, and what `max_error` requires, with as many digits as tell the one from the other."""
        if self.changed is not None:
            digits = digits_apart(100 * self.changed, 100 * max_error, 2)
            return f"{self.changed:.{digits}%} of the values changed", f"at most {format_percent(max_error)}"
        least = decibels(max_error)
        part = self.worst_part
        ratios = [self.sqnr_db] if part is None else [self.sqnr_db, part.sqnr_db]
        digits = max(digits_apart(ratio, least, 1) for ratio in ratios)
        worst = ""
        if part is not None:
            worst = f" ({part.sqnr_db:.{digits}f} dB in {part.start}:{part.stop} of axis {part.axis})"
        text, limit = f"{self.sqnr_db:.{digits}f} dB SQNR{worst}", f"at least {least:.{digits}f} dB"
        if self.top1 is not None:
            digits = digits_apart(100 * self.top1, 100 * (1 - max_error), 2)
            text += f", {self.top1:.{digits}%} top-1 agreement"
            limit += f" and {format_percent(1 - max_error)}"
        return text, limit if max_error else "identical outputs"

    @property
    def similarity_text(self) -> str:
        """The similarity as text, for tables."""
        return f"{self.cosine:.6f}" if self.changed is None else f"{self.changed:.2%} changed"


def digits_apart(value: float, limit: float, digits: int) -> int:
    """How many decimals, `digits` at least, it takes that `value` and `limit` compare as text as they do as numbers."""
    if not math.isfinite(value) or not math.isfinite(limit):
        return digits
    for decimals in range(digits, 16):
        if np.sign(round(value, decimals) - round(limit, decimals)) == np.sign(value - limit):
            return decimals
    return digits  # they are equal


def worst_output(outputs: Mapping[str, OutputFidelity]) -> OutputFidelity | None:
    """The output with the largest error, where NaN counts as largest; None where no output could be compared."""
    compared = [output for output in outputs.values() if output.compared]
    return max(compared, key=lambda output: math.inf if math.isnan(output.error) else output.error, default=None)


class FidelityMeter:
    """Sums what `OutputFidelity` needs, in float64.

    Args:
        scores: whether the output holds scores of classes along its last axis; see `score_outputs`.
        joint: where the output joins several quantities; see `joined_outputs`.
    """

    def __init__(self, scores: bool = False, joint: Joint | None = None) -> None:
        self._scores = scores
        self._parts = None if joint is None else PartMeter(joint)
        self._signal = self._candidate = self._product = self._noise = 0.0
        self._absolute = self._largest = 0.0
        self._values = self._left_out = self._positions = self._agreeing = 0
        self._changed: int | None = None

    def update(self, reference: Array, candidate: Array) -> None:
        """Add one batch; both arrays have the same shape."""
        if reference.dtype.kind != "f" and self._changed is None:
            self._changed = 0
        flat_reference, flat_candidate = reference.reshape(-1), candidate.reshape(-1)
        for start in range(0, reference.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            self._add(flat_reference[block], flat_candidate[block])
        if self._parts is not None and reference.dtype.kind == "f":
            self._parts.update(reference, candidate)
        if self._scores and reference.ndim and reference.shape[-1] > 1:
            same = (reference.argmax(axis=-1) == candidate.argmax(axis=-1))[~np.isnan(reference).any(axis=-1)]
            self._positions += same.size
            self._agreeing += int(same.sum())

    def _add(self, reference: Array, candidate: Array) -> None:
        """Add the values of a block [n]."""
        finite = np.isfinite(reference)
        if not finite.all():
            reference, candidate = reference[finite], candidate[finite]
        expected, actual = reference.astype(np.float64), candidate.astype(np.float64)
        self._values += expected.size
        self._left_out += finite.size - expected.size
        if not np.isfinite(actual).all():
            actual.fill(np.nan)
        error = actual - expected
        if self._changed is not None:
            self._changed += int(np.count_nonzero(error))
        self._signal += float(expected @ expected)
        self._candidate += float(actual @ actual)
        self._product += float(expected @ actual)
        self._noise += float(error @ error)
        np.abs(error, out=error)
        self._absolute += float(error.sum())
        self._largest = float(np.maximum(self._largest, error.max(initial=0)))  # NaN stays NaN

    def result(self) -> OutputFidelity:
        """The fidelity over all batches so far; equal outputs have an infinite SQNR and cosine 1."""
        norm = math.sqrt(self._signal * self._candidate)
        if not self._values:
            sqnr = cosine = math.nan
        elif self._noise == 0:
            sqnr, cosine = math.inf, 1.0
        else:
            sqnr = 10 * math.log10(self._signal / self._noise) if self._signal else -math.inf
            cosine = self._product / norm if norm else 0.0
        return OutputFidelity(
            sqnr_db=sqnr,
            cosine=cosine,
            top1=self._agreeing / self._positions if self._positions else None,
            max_abs=self._largest if self._values else math.nan,
            mean_abs=self._absolute / self._values if self._values else math.nan,
            compared=self._values,
            left_out=self._left_out,
            changed=None if self._changed is None or not self._values else self._changed / self._values,
            worst_part=None if self._parts is None else self._parts.worst(),
            answers=self._positions,
        )


class PartMeter:
    """Sums the energies of error and signal of each part of an output."""

    def __init__(self, joint: Joint) -> None:
        self._joint = joint
        self._sums = np.zeros((len(joint.ends), 4))  # values, sum, energy of the reference, energy of the error

    def update(self, reference: Array, candidate: Array) -> None:
        """Add one batch; a value that is NaN or infinite counts only in the figures of the whole output."""
        start = 0
        for index, stop in enumerate(self._joint.ends):
            part = (slice(None),) * self._joint.axis + (slice(start, stop),)
            expected, actual = reference[part].astype(np.float64), candidate[part].astype(np.float64)
            finite = np.isfinite(expected) & np.isfinite(actual)
            expected, error = expected[finite], (actual - expected)[finite]
            self._sums[index] += expected.size, expected.sum(), np.square(expected).sum(), np.square(error).sum()
            start = stop

    def worst(self) -> PartFidelity | None:
        """The part with the lowest SQNR; None without any varying part."""
        parts = []
        start = 0
        for stop, (values, total, energy, noise) in zip(self._joint.ends, self._sums, strict=True):
            signal = energy - total * total / max(values, 1)
            if signal > 1e-12 * energy:
                ratio = 10 * math.log10(signal / noise) if noise else math.inf
                parts.append(PartFidelity(self._joint.axis, start, stop, ratio))
            start = stop
        return min(parts, key=lambda part: part.sqnr_db, default=None)
