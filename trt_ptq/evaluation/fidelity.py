"""Fidelity: how close the outputs of a model are to those of its reference, accumulated batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trt_ptq.types import Array

COMPARABLE = "biuf"  # NumPy's kinds of booleans, integers and floats


@dataclass(frozen=True)
class OutputFidelity:
    """Fidelity of one output over all batches.

    The figures are NaN where the candidate is NaN or infinite and the reference is not, and where no value could be
    compared.

    Attributes:
        sqnr_db: signal-to-quantization-noise ratio: 10 log10(energy of the reference / energy of the error).
        cosine: cosine similarity of all reference values and all candidate values.
        top1: fraction of positions whose largest entry along the last axis is the same; None for outputs with fewer
            than two entries there.
        max_abs: largest absolute error, in the unit of the output.
        mean_abs: mean absolute error, in the unit of the output.
        compared: number of values that were compared.
        left_out: number of values that are NaN or infinite in the reference.
        changed: fraction of the values that differ, for integers and booleans; None for floats.
    """

    sqnr_db: float
    cosine: float
    top1: float | None
    max_abs: float
    mean_abs: float
    compared: int
    left_out: int = 0
    changed: float | None = None

    @property
    def loss(self) -> float:
        """1 - cosine similarity; for integers and booleans the fraction that `changed`."""
        return 1 - self.cosine if self.changed is None else self.changed

    @property
    def similarity_text(self) -> str:
        """The similarity as text, for tables."""
        return f"{self.cosine:.6f}" if self.changed is None else f"{self.changed:.2%} changed"


def worst_output(outputs: Mapping[str, OutputFidelity]) -> OutputFidelity | None:
    """The output with the largest loss, where NaN counts as largest; None where no output could be compared."""
    compared = [output for output in outputs.values() if output.compared]
    return max(compared, key=lambda output: math.inf if math.isnan(output.loss) else output.loss, default=None)


class FidelityMeter:
    """Sums what `OutputFidelity` needs, in float64."""

    def __init__(self) -> None:
        self._signal = self._candidate = self._product = self._noise = 0.0
        self._absolute = self._largest = 0.0
        self._values = self._left_out = self._positions = self._agreeing = 0
        self._changed: int | None = None

    def update(self, reference: Array, candidate: Array) -> None:
        """Add one batch; both arrays have the same shape."""
        finite = np.isfinite(reference)
        expected = reference[finite].astype(np.float64)
        actual = candidate[finite].astype(np.float64)
        self._values += expected.size
        self._left_out += reference.size - expected.size
        if not np.isfinite(actual).all():
            actual = np.full_like(actual, np.nan)
        error = actual - expected
        if reference.dtype.kind != "f":
            self._changed = (self._changed or 0) + int(np.count_nonzero(error))
        self._signal += float(expected @ expected)
        self._candidate += float(actual @ actual)
        self._product += float(expected @ actual)
        self._noise += float(error @ error)
        self._absolute += float(np.abs(error).sum())
        self._largest = float(np.maximum(self._largest, np.abs(error).max(initial=0)))  # NaN stays NaN
        if reference.ndim and reference.shape[-1] > 1:
            same = (reference.argmax(axis=-1) == candidate.argmax(axis=-1))[~np.isnan(reference).any(axis=-1)]
            self._positions += same.size
            self._agreeing += int(same.sum())

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
        )
