"""Min-max: nothing is clipped."""

from __future__ import annotations

from dataclasses import dataclass

from trt_ptq.calibrators.statistics.tensor import TensorStatistics


@dataclass(frozen=True)
class MinMax:
    """The largest magnitude seen."""

    name = "minmax"

    def amax(self, tensor: TensorStatistics) -> float:
        return tensor.amax
