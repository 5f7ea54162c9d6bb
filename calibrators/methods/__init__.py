"""Range methods, which derive amax from the statistics of a tensor. The scale is amax / 127 (symmetric INT8)."""

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
    """Derives the range [-amax, amax] of a tensor. Implementations are frozen dataclasses: equal ones are equal."""

    @property
    def name(self) -> str:
        """The name in tables and reports, with its parameter."""
        ...

    def amax(self, tensor: TensorStatistics) -> float:
        """Return the largest magnitude to represent, in the tensor's unit; above 0 unless all values are 0."""
        ...


METHODS: dict[str, RangeMethod] = {
    "entropy": Entropy(),
    "minmax": MinMax(),
    "mse": Mse(),
    "percentile": Percentile(),
}

# Method "auto" selects from these by the output error of the model; the first is the default of all other commands.
AUTO_CANDIDATES: tuple[RangeMethod, ...] = (
    METHODS["percentile"],
    METHODS["minmax"],
    Percentile(99.999),
    Percentile(99.9),
    METHODS["mse"],
    METHODS["entropy"],
)


def range_method(name: str, percentile: float | None = None) -> RangeMethod:
    """Return a range method by its name.

    Args:
        name: "entropy", "minmax", "mse" or "percentile".
        percentile: For method "percentile" only: in percent, above 1 and up to 100. Default: 99.99.

    Raises:
        UsageError: Unknown name, `percentile` for another method, out of bounds or a fraction, or "auto", which needs
            the model and data.
    """
    if name == "auto":
        raise UsageError(
            "method auto compares range methods by running the model on data, which only `quantize` does: "
            "choose one of " + ", ".join(METHODS)
        )
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    if percentile is None:
        return METHODS[name]
    if name != "percentile":
        raise UsageError(f"`percentile` applies to method percentile only, not to {name}")
    if 0 < percentile <= 1:
        meant = f"{100 * percentile:.10g}"
        raise UsageError(f"`percentile` is in percent, above 1 and up to 100, not {percentile}: did you mean {meant}?")
    return Percentile(percentile)
