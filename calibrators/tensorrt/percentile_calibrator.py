"""Percentile ranges in TensorRT's own builder, which has no percentile calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import Any

from trt_ptq.calibrators.methods import Percentile
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache
from trt_ptq.calibrators.tensorrt.batch import BatchCalibrator
from trt_ptq.calibrators.tensorrt.buffers import open_buffers
from trt_ptq.calibrators.tensorrt.prefetch import OpenBuffers
from trt_ptq.errors import EngineError, TableError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import ProgressCallback, no_progress


class PercentileCalibrator(BatchCalibrator):
    """Percentile ranges of our `statistics`; min-max of TensorRT's for the tensors that only TensorRT knows.

    That takes two builds, which `passes` counts. In the first one TensorRT measures min-max over `batches`, as a
    `trt.IInt8MinMaxCalibrator`; its engine has min-max ranges and is to be thrown away. In the second one it is
    served its own table, in which the percentile ranges have replaced the min-max ones; nothing is measured. A
    timing cache in the config makes the second build short. With a `cache` that is complete, one build is enough.

    DLA takes no min-max calibrator: there, serve `cache` by a TableCalibrator.

    Args:
        statistics: of the same model; from trt-ptq calibrate.
        percentile: above 0 and up to 100.
        For the others see BatchCalibrator. `model` is that of the statistics unless given.

    Raises:
        TableError: the statistics are of another `model`, or name no tensor of the network (raised by the build).
        UsageError: no such percentile.
    """

    interface = "IInt8MinMaxCalibrator"
    algorithm = "MinMaxCalibration"

    def __init__(
        self,
        batches: Iterable[Any],
        cache: str | PathLike[str] | None = None,
        *,
        statistics: Statistics,
        percentile: float = 99.99,
        network: Any = None,
        profile: Any = None,
        model: ModelIdentity | None = None,
        progress: ProgressCallback = no_progress,
        open_buffers: OpenBuffers = open_buffers,
    ) -> None:
        self._table = derive_table(statistics, Percentile(percentile))
        self._table.check_model(model or statistics.model, "the statistics")
        # Percentiles of other data are other ranges, although nothing else in the cache would say so.
        self.ranges = f"{Percentile(percentile).name} of data {statistics.data.digest}"
        self._measured = self._used = False
        super().__init__(
            batches,
            cache,
            network=network,
            profile=profile,
            model=statistics.model,
            progress=progress,
            open_buffers=open_buffers,
        )

    def passes(self) -> Iterator[None]:
        """One turn, or where TensorRT had to measure, two."""
        yield from super().passes()
        if not self._used:
            yield from super().passes()

    def cache_to_serve(self) -> bytes | None:
        served = super().cache_to_serve()
        self._used = served is not None
        return served

    def finished(self, content: bytes) -> bytes:
        """TensorRT's min-max cache with our ranges in place of its own."""
        measured = TensorRTCache.parse(content, "the cache that TensorRT made")
        ours = dict(TensorRTCache.from_table(self._table, measured.version, self.algorithm).entries)
        if not any(name in ours for name, _ in measured.entries):
            raise TableError(
                "the statistics name no tensor of this network, so there is no percentile range to use: "
                "collect them from the ONNX file that the network was parsed from"
            )
        self._measured = True
        return replace(
            measured, entries=tuple((name, ours.get(name, digits)) for name, digits in measured.entries)
        ).to_bytes()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None and self._measured and not self._used:
            raise EngineError(
                "the engine that was built has min-max ranges: build once more with the same calibrator for the "
                "percentile ranges (for _ in calibrator.passes(): ...)"
            )
