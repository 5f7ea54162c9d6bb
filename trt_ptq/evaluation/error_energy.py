"""What INT8 does to values, and how much of the signal it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from trt_ptq.errors import ModelError
from trt_ptq.evaluation.fidelity import COMPARABLE
from trt_ptq.types import Array

_LOWEST, _HIGHEST = -128, 127
_SLAB_VALUES = 2**17  # few enough to stay in the processor's cache


def fake_quantize(values: Array, scale: np.float32) -> Array:
    """float32 as QuantizeLinear and DequantizeLinear leave it: int8, zero point 0, half to even, saturated."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and saturates
        steps: Array = values / scale
    np.rint(steps, out=steps)
    np.clip(steps, _LOWEST, _HIGHEST, out=steps)
    steps *= scale
    return steps


@dataclass
class ErrorSplit:
    """Energy of what INT8 makes wrong in a tensor: by `clipping` the values beyond its range, by `rounding` others."""

    clipping: float = 0.0
    rounding: float = 0.0

    def add(self, values: Array, scale: np.float32) -> None:
        """Add one batch of a tensor that is quantized with `scale`."""
        with np.errstate(over="ignore", invalid="ignore"):  # of infinite values the error is infinite
            error = np.square(fake_quantize(values, scale) - values)
        clipped = (values > (_HIGHEST + 0.5) * scale) | (values < (_LOWEST - 0.5) * scale)
        beyond = float(error[clipped].sum(dtype=np.float64))
        self.clipping += beyond
        self.rounding += float(error.sum(dtype=np.float64)) - beyond

    @property
    def clipping_share(self) -> float | None:
        """Of the whole error; None if there is none."""
        total = self.clipping + self.rounding
        return self.clipping / total if total else None


class ErrorEnergy:
    """Energy of error and of signal, by tensor, added up over batches in float64."""

    def __init__(self) -> None:
        self._noise: dict[str, float] = {}
        self._signal: dict[str, float] = {}

    def add(self, name: str, reference: Array, candidate: Array) -> None:
        """Add one batch. Values that are NaN or infinite in the reference do not count; elsewhere they are NaN.

        Raises:
            ModelError: the two cannot be compared.
        """
        if reference.shape != candidate.shape:
            raise ModelError(
                f"output {name!r} has shape {list(candidate.shape)} in INT8 and {list(reference.shape)} in float: one "
                "whose size depends on the data, as after a non-maximum suppression, cannot be compared; end the "
                "model before it"
            )
        if reference.dtype.kind not in COMPARABLE:
            raise ModelError(f"output {name!r} holds no numbers, so it cannot be compared")
        flat, other = reference.reshape(-1), candidate.reshape(-1)
        for start in range(0, max(flat.size, 1), _SLAB_VALUES):
            slab = slice(start, start + _SLAB_VALUES)
            if reference.dtype.kind == "f":
                self._add(name, flat[slab].astype(np.float64), other[slab].astype(np.float64))
            else:  # classes and masks have no size: how many differ, of how many
                self._add_energies(name, float((flat[slab] != other[slab]).sum()), float(flat[slab].size))

    def _add(self, name: str, wanted: Array, got: Array) -> None:
        scored = np.isfinite(wanted)
        if not scored.all():
            wanted, got = wanted[scored], got[scored]
        with np.errstate(over="ignore", invalid="ignore"):
            error = got - wanted
            error_energy = float(np.square(error).sum())
        self._add_energies(
            name, error_energy if math.isfinite(error_energy) else math.nan, float(np.square(wanted).sum())
        )

    def _add_energies(self, name: str, error_energy: float, signal: float) -> None:
        self._noise[name] = self._noise.get(name, 0.0) + error_energy
        self._signal[name] = self._signal.get(name, 0.0) + signal

    def merge(self, other: ErrorEnergy) -> None:
        """Add what `other` has added."""
        for name, error_energy in other._noise.items():
            self._add_energies(name, error_energy, other._signal[name])

    def ratios(self) -> Mapping[str, float]:
        """noise / signal by tensor: 0 without noise, infinite where there is no signal but noise."""
        return {name: _ratio(error_energy, self._signal[name]) for name, error_energy in self._noise.items()}

    def worst(self) -> float:
        """The largest ratio, NaN being larger than any; 0 if nothing was added.

        Tensors without any signal count only where there are no others: they would outweigh all.
        """
        ratios = self.ratios()
        telling = [ratio for name, ratio in ratios.items() if self._signal[name]] or list(ratios.values())
        return max(telling, key=cost, default=0.0)


def total(noises: Iterable[ErrorEnergy]) -> ErrorEnergy:
    """What all of these have added."""
    whole = ErrorEnergy()
    for one in noises:
        whole.merge(one)
    return whole


def _ratio(error_energy: float, signal: float) -> float:
    if error_energy == 0:
        return 0.0
    return error_energy / signal if signal else (math.nan if math.isnan(error_energy) else math.inf)


def cost(ratio: float) -> float:
    """To sort by: NaN and infinity cost most."""
    return math.inf if math.isnan(ratio) else ratio


def decibels(ratio: float) -> float:
    """SQNR of noise / signal: infinite without noise."""
    return math.inf if ratio == 0 else -10 * math.log10(ratio)
