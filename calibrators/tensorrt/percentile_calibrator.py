"""Percentile ranges in TensorRT's builder, which has no percentile calibration of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import Any

from trt_ptq.calibrators.methods import range_method
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache
from trt_ptq.calibrators.tensorrt.batch import BatchCalibrator
from trt_ptq.calibrators.tensorrt.calibration_warning import CalibrationFailedWarning
from trt_ptq.calibrators.tensorrt.device_memory.buffers import OpenBuffers, open_buffers
from trt_ptq.data.open import Preprocess
from trt_ptq.errors import EngineError, TableError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import ProgressCallback, no_progress

_SECOND_BUILD_MISSING = (
    "the engine was built with min-max ranges: build once more with the same calibrator for the percentile ranges "
    "(for _ in calibrator.passes(): ...)"
)


class PercentileCalibrator(BatchCalibrator):
    """Percentile ranges from `statistics`, and min-max ranges for the tensors that only TensorRT knows.

    This takes two builds, which `passes` counts. In the first build TensorRT measures min-max ranges over `data`, as a
    `trt.IInt8MinMaxCalibrator`; discard its engine. In the second build it is served its own cache, in which the
    percentile ranges have replaced min-max ranges; nothing is measured. A timing cache in the config makes the second
    build fast. With a complete `cache` file, one build is enough.

    DLA does not accept a min-max calibrator: serve the percentile table by a TableCalibrator there.

    Args:
        data: see BatchCalibrator, also for the other arguments.
        cache: file for the result.
        statistics: of the same model, from `trt_ptq.calibrate`.
        percentile: of |x|, in percent, above 1 and up to 100.
        model: identity of the ONNX model; the statistics must belong to it.

    Raises:
        TableError: the statistics belong to another `model`, or name no tensor of the network (raised by the build).
        UsageError: `percentile` is out of range.
        Exception: see BatchCalibrator.
    """

    interface = "IInt8MinMaxCalibrator"
    algorithm = "MinMaxCalibration"

    def __init__(
        self,
        data: Any,
        cache: str | PathLike[str] | None = None,
        *,
        statistics: Statistics,
        percentile: float = 99.99,
        network: Any = None,
        profile: Any = None,
        preprocess: str | Preprocess | None = None,
        model: ModelIdentity | None = None,
        progress: ProgressCallback = no_progress,
        open_buffers: OpenBuffers = open_buffers,
    ) -> None:
        method = range_method("percentile", percentile)
        self._table = derive_table(statistics, method)
        self._table.check_model(model or statistics.model, "the statistics")
        # Percentiles of other data are other ranges, and nothing else in the cache would show it.
        self.ranges = f"{method.name} of data {statistics.data.digest}"
        self._measured = self._served = False
        super().__init__(
            data,
            cache,
            network=network,
            profile=profile,
            preprocess=preprocess,
            model=statistics.model,
            progress=progress,
            open_buffers=open_buffers,
        )

    def passes(self) -> Iterator[None]:
        """Iterate once, or twice if TensorRT has to measure; raises the exception of a callback after each build."""
        yield from super().passes()
        if not self._served:
            yield from super().passes()

    def cache_to_serve(self) -> bytes | None:
        content = super().cache_to_serve()
        self._served = content is not None
        return content

    def finish_cache(self, content: bytes) -> bytes:
        """TensorRT's min-max cache with our percentile ranges in place of its own."""
        measured = TensorRTCache.parse(content, "the cache from TensorRT")
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

    def close(self) -> None:
        """Free the device buffers; warn if the second build is missing, or if an exception was never raised."""
        super().close()
        self._warn_of_missing_build()

    def __del__(self) -> None:
        super().__del__()
        if hasattr(self, "_measured"):  # missing if __init__ failed
            self._warn_of_missing_build()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        missing, self._measured = self._measured and not self._served, False
        super().__exit__(kind, error, traceback)
        if kind is None and missing:
            raise EngineError(_SECOND_BUILD_MISSING)

    def _warn_of_missing_build(self) -> None:
        if self._measured and not self._served:
            self._measured = False  # once
            warnings.warn(_SECOND_BUILD_MISSING, CalibrationFailedWarning, stacklevel=3)
