"""The error that INT8 adds to tensors, and its energy relative to the signal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from trt_ptq.errors import ModelError
from trt_ptq.types import Array

_LOWEST, _HIGHEST = -128, 127
_SLAB_VALUES = 2**17  # few enough to stay in the processor's cache

COMPARABLE = "biuf"  # NumPy's kinds of booleans, integers and floats


def fake_quantize(values: Array, scale: np.float32) -> Array:
    """Quantize float32 values to INT8 and back, as QuantizeLinear and DequantizeLinear do.

    Symmetric (zero point 0), rounded half to even, saturated to -128..127.
    """
    with np.errstate(over="ignore"):  # a quotient beyond float32 is infinite, and saturates
        steps: Array = values / scale
    np.rint(steps, out=steps)
    np.clip(steps, _LOWEST, _HIGHEST, out=steps)
    steps *= scale
    return steps


@dataclass
class ErrorSplit:
    """Energy of the error that INT8 adds to a tensor, by cause.

    Attributes:
        clipping: energy of the error in values beyond the range.
        rounding: energy of the error in all others.
    """

    clipping: float = 0.0
    rounding: float = 0.0

    def add(self, values: Array, scale: np.float32) -> None:
        """Add one batch of a tensor that is quantized with `scale`."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite values have an infinite error
            error = np.square(fake_quantize(values, scale) - values)
        clipped = (values > (_HIGHEST + 0.5) * scale) | (values < (_LOWEST - 0.5) * scale)
        beyond = float(error[clipped].sum(dtype=np.float64))
        self.clipping += beyond
        self.rounding += float(error.sum(dtype=np.float64)) - beyond

    @property
    def clipping_fraction(self) -> float | None:
        """Fraction of the error energy that comes from clipping; None if there is no error."""
        energy = self.clipping + self.rounding
        return self.clipping / energy if energy else None


class ErrorEnergy:
    """Energy of the error and of the signal by tensor, summed over batches in float64."""

    def __init__(self) -> None:
        self._error: dict[str, float] = {}
        self._signal: dict[str, float] = {}

    def add(self, name: str, reference: Array, candidate: Array) -> None:
        """Add one batch of a tensor.

        Values that are NaN or infinite in the reference are skipped; where only the candidate has such, the error is
        NaN. For integers and booleans the error is the number of values that differ, and the signal their count.

        Raises:
            ModelError: the shapes differ, or the tensor holds no numbers.
        """
        if reference.shape != candidate.shape:
            raise ModelError(
                f"output {name!r} has shape {list(candidate.shape)} in INT8 and {list(reference.shape)} in FP32: an "
                "output whose size depends on the data, as after a non-maximum suppression, cannot be compared; end "
                "the model before it"
            )
        if reference.dtype.kind not in COMPARABLE:
            raise ModelError(f"output {name!r} holds no numbers, so it cannot be compared")
        flat, other = reference.reshape(-1), candidate.reshape(-1)
        for start in range(0, max(flat.size, 1), _SLAB_VALUES):
            slab = slice(start, start + _SLAB_VALUES)
            if reference.dtype.kind == "f":
                self._add_floats(name, flat[slab].astype(np.float64), other[slab].astype(np.float64))
            else:  # classes and masks have no magnitude
                self._add_energies(name, float((flat[slab] != other[slab]).sum()), float(flat[slab].size))

    def _add_floats(self, name: str, expected: Array, actual: Array) -> None:
        finite = np.isfinite(expected)
        if not finite.all():
            expected, actual = expected[finite], actual[finite]
        with np.errstate(over="ignore", invalid="ignore"):
            difference = actual - expected
            error = float(np.square(difference).sum())
        self._add_energies(name, error if math.isfinite(error) else math.nan, float(np.square(expected).sum()))

    def _add_energies(self, name: str, error: float, signal: float) -> None:
        self._error[name] = self._error.get(name, 0.0) + error
        self._signal[name] = self._signal.get(name, 0.0) + signal

    def add_divergence(self, name: str, divergence: Array) -> None:
        """Add a batch of a tensor whose error at each position is known, such as a divergence of distributions."""
        total = float(divergence.sum())
        self._add_energies(name, total if math.isfinite(total) else math.nan, float(divergence.size))

    def merge(self, other: ErrorEnergy) -> None:
        """Add the energies of `other`."""
        for name, error in other._error.items():
            self._add_energies(name, error, other._signal[name])

    def ratios(self) -> Mapping[str, float]:
        """Error / signal by tensor: 0 without an error, infinite where there is an error but no signal."""
        return {name: _ratio(error, self._signal[name]) for name, error in self._error.items()}

    def worst(self) -> float:
        """The largest ratio, where NaN counts as largest; 0 if nothing was added.

        Tensors without any signal count only where there are no others: their infinite ratio would hide the rest.
        """
        ratios = self.ratios()
        relevant = [ratio for name, ratio in ratios.items() if self._signal[name]] or list(ratios.values())
        return max(relevant, key=sort_key, default=0.0)


def total(energies: Iterable[ErrorEnergy]) -> ErrorEnergy:
    """Sum the energies of several batches."""
    whole = ErrorEnergy()
    for energy in energies:
        whole.merge(energy)
    return whole


def _ratio(error: float, signal: float) -> float:
    if error == 0:
        return 0.0
    return error / signal if signal else (math.nan if math.isnan(error) else math.inf)


def sort_key(ratio: float) -> float:
    """Key to sort error ratios by: NaN and infinity are the worst."""
    return math.inf if math.isnan(ratio) else ratio


def decibels(ratio: float) -> float:
    """Convert a ratio of error to signal to SQNR in dB; infinite without an error."""
    return math.inf if ratio == 0 else -10 * math.log10(ratio)
