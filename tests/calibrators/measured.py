"""Statistics of arrays, without a model."""

from __future__ import annotations

from trt_ptq.calibrators.statistics.tensor import TensorAccumulator, TensorStatistics
from trt_ptq.types import Array


def measure(*batches: Array) -> TensorStatistics:
    """The statistics of all `batches` together."""
    accumulator = TensorAccumulator()
    for batch in batches:
        accumulator.update(batch)
    return accumulator.statistics()
