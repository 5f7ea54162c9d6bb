"""One time through the data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from trt_ptq._internal.cpu import usable_cores
from trt_ptq._internal.signals import deferred_interrupts
from trt_ptq.calibration.devices import Device
from trt_ptq.calibration.observed_model import ObservedModel
from trt_ptq.calibration.state import CalibrationState
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model
from trt_ptq.provenance import DataFingerprint
from trt_ptq.types import Batch

Nonfinite = Literal["refuse", "skip"]


class CalibrationPass:
    """Measures the tensors of one pass in batch after batch.

    The first batches are only looked at, where an earlier run measured them: then `before` is what it left.
    """

    def __init__(
        self, model: Model, before: CalibrationState, nonfinite: Nonfinite, device: Device, threads: int | None
    ) -> None:
        names = before.passes[before.current]
        self.data = DataFingerprint()
        self._batches = 0
        self._before = before
        self._nonfinite = nonfinite
        self._threads = threads
        self._tapped = ObservedModel(model, names, device, threads)
        self._accumulators = {name: device.accumulator() for name in names}

    def steps(self, batches: Iterable[Batch]) -> Iterator[None]:
        """Go through `batches`; a pause after each one that was measured.

        Raises:
            DataError: a batch on which the model fails; a NaN or infinity that is refused; other data than `before`.
        """
        with ThreadPoolExecutor(self._threads or usable_cores()) as pool:
            for batch in batches:
                if self._batches >= self._before.batches:
                    with deferred_interrupts():
                        self.data += self._measure(batch, pool)
                        self._batches += 1
                    yield
                    continue
                self.data += DataFingerprint.from_feeds(batch.feeds)
                self._batches += 1
                if self._batches == self._before.batches:
                    self._before.check_data(self.data)
        if self._batches < self._before.batches:
            self._before.check_data(self.data)
        if not self.data.samples:
            raise DataError("the data has no batches")

    def _measure(self, batch: Batch, pool: ThreadPoolExecutor) -> DataFingerprint:
        arrays = self._tapped.run(batch)
        fingerprint = pool.submit(DataFingerprint.from_feeds, batch.feeds)
        counts = {name: pool.submit(one.update, arrays[name]) for name, one in self._accumulators.items()}
        found = {name: count.result() for name, count in counts.items()}
        if self._nonfinite == "refuse":
            _check_finite_values(found, arrays, batch)
        return fingerprint.result()

    @property
    def has_new_batches(self) -> bool:
        """Whether there is more than an earlier run left."""
        return self._batches > self._before.batches

    def tensors(self) -> dict[str, TensorStatistics]:
        """The statistics so far of the tensors of this pass."""
        before = self._before.statistics.tensors
        now = {name: accumulator.statistics() for name, accumulator in self._accumulators.items()}
        return {name: before[name].merge(one) if name in before else one for name, one in now.items()}

    def state(self) -> CalibrationState:
        """How far the calibration has come."""
        return self._before.after(self.tensors(), self.data, self._batches)


def _check_finite_values(found: Mapping[str, int], arrays: Mapping[str, Any], batch: Batch) -> None:
    for name, count in found.items():  # in graph order: the first one is where it began
        if count:
            size = math.prod(arrays[name].shape)
            raise DataError(
                f"{batch.origin}: tensor {name!r} has {count} NaN or infinite values of {size}: "
                "leave the batch out, or count and skip them with --nonfinite skip"
            )
