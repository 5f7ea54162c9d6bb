"""How close the outputs of a model are to those of its reference, accumulated batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trt_ptq.types import Array

COMPARABLE = "biuf"  # NumPy's kinds of booleans, integers and floats


@dataclass(frozen=True)
class OutputFidelity:
    """Of one output, over all batches.

    `sqnr_db`: 10 log10 of the reference's energy over the error's; `cosine`: between all reference and all
    candidate values; `top1`: share of positions whose largest entry along the last axis is the same (None for
    outputs with fewer than two entries there); `changed`: share of values that differ, of integers and booleans, which
    are classes and have no direction (None for floats); `max_abs` and `mean_abs` error in the output's unit. All are
    NaN where the candidate is NaN or infinite and the reference is not, and where no value could be `compared`. Values
    that are NaN or infinite in the reference are `left_out`.
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
        """1 - cosine, or what is `changed`."""
        return 1 - self.cosine if self.changed is None else self.changed

    @property
    def similarity_text(self) -> str:
        """For tables, under the heading "cosine"."""
        return f"{self.cosine:.6f}" if self.changed is None else f"{self.changed:.2%} changed"


def worst_output(outputs: Mapping[str, OutputFidelity]) -> OutputFidelity | None:
    """The one of largest loss, NaN being larger than any number; None where no output could be compared."""
    compared = [one for one in outputs.values() if one.compared]
    return max(compared, key=lambda one: math.inf if math.isnan(one.loss) else one.loss, default=None)


class FidelityMeter:
    """Adds up what `OutputFidelity` needs, in float64."""

    def __init__(self) -> None:
        self._signal = self._candidate = self._product = self._noise = 0.0
        self._absolute = self._largest = 0.0
        self._values = self._left_out = self._positions = self._agreeing = 0
        self._changed: int | None = None

    def update(self, reference: Array, candidate: Array) -> None:
        """Add one batch; both arrays have the same shape."""
        scored = np.isfinite(reference)
        wanted = reference[scored].astype(np.float64)
        got = candidate[scored].astype(np.float64)
        self._values += wanted.size
        self._left_out += reference.size - wanted.size
        if not np.isfinite(got).all():
            got = np.full_like(got, np.nan)
        error = got - wanted
        if reference.dtype.kind != "f":
            self._changed = (self._changed or 0) + int(np.count_nonzero(error))
        self._signal += float(wanted @ wanted)
        self._candidate += float(got @ got)
        self._product += float(wanted @ got)
        self._noise += float(error @ error)
        self._absolute += float(np.abs(error).sum())
        self._largest = float(np.maximum(self._largest, np.abs(error).max(initial=0)))  # NaN stays NaN
        if reference.ndim and reference.shape[-1] > 1:
            same = (reference.argmax(axis=-1) == candidate.argmax(axis=-1))[~np.isnan(reference).any(axis=-1)]
            self._positions += same.size
            self._agreeing += int(same.sum())

    def result(self) -> OutputFidelity:
        """Fidelity over all batches so far; equal outputs have infinite SQNR and cosine 1."""
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
