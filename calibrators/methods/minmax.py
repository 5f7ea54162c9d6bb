"""Min-max: clips nothing."""

from __future__ import annotations

from dataclasses import dataclass

from trt_ptq.calibrators.statistics.tensor import TensorStatistics


@dataclass(frozen=True)
class MinMax:
    """The largest magnitude of the tensor, max(|min|, |max|)."""

    name = "minmax"

    def amax(self, tensor: TensorStatistics) -> float:
        return tensor.amax
