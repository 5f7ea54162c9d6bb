"""Range methods: from the statistics of a tensor to its amax; the scale is amax / 127 (symmetric int8)."""

from __future__ import annotations

from typing import Protocol

from trt_ptq.calibrators.methods.entropy import Entropy
from trt_ptq.calibrators.methods.minmax import MinMax
from trt_ptq.calibrators.methods.mse import Mse
from trt_ptq.calibrators.methods.percentile import Percentile
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import UsageError

__all__ = ["AUTO_CANDIDATES", "METHODS", "Entropy", "MinMax", "Mse", "Percentile", "RangeMethod", "range_method"]


class RangeMethod(Protocol):
    """Chooses the range [-amax, amax] of a tensor; frozen, so that equal methods give equal tables."""

    @property
    def name(self) -> str: ...

    def amax(self, tensor: TensorStatistics) -> float:
        """The range in the tensor's unit: above 0 unless every value was 0."""
        ...


METHODS: dict[str, RangeMethod] = {
    "entropy": Entropy(),
    "minmax": MinMax(),
    "mse": Mse(),
    "percentile": Percentile(),
}

# What `quantize` chooses from by what they do to the outputs; the first is the usual one.
AUTO_CANDIDATES: tuple[RangeMethod, ...] = (
    METHODS["percentile"],
    METHODS["minmax"],
    Percentile(99.999),
    Percentile(99.9),
    METHODS["mse"],
    METHODS["entropy"],
)


def range_method(name: str, percentile: float | None = None) -> RangeMethod:
    """The method called `name`; `percentile` (0-100) belongs to the method "percentile" only.

    Raises:
        UsageError: unknown name, a percentile where there is none, or "auto", which no statistics alone can answer.
    """
    if name == "auto":
        raise UsageError(
            "method auto compares the range methods by running the model on data, which only `quantize` does: "
            "choose one of " + ", ".join(METHODS)
        )
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    if percentile is None:
        return METHODS[name]
    if name != "percentile":
        raise UsageError(f"--percentile belongs to --method percentile, not to {name}")
    return Percentile(percentile)
