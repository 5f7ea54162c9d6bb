"""One pass over the calibration data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq._internal.signals import deferred_interrupts
from trt_ptq.calibration.devices import Accumulator, Device
from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.calibration.state import CalibrationState
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.choices import Nonfinite
from trt_ptq.errors import DataError, ModelError
from trt_ptq.onnx_io.external_data import read_once
from trt_ptq.onnx_io.load import Model
from trt_ptq.provenance import DataFingerprint
from trt_ptq.types import Batch


class CalibrationPass:
    """Collects the statistics of the tensors of one pass, batch by batch.

    When an interrupted calibration resumes, the batches that it had measured are only compared by their fingerprint.

    Args:
        model: The float model.
        before: The state to continue from; its current pass names the tensors.
        nonfinite: Whether NaN and infinity are refused, or skipped and counted.
        device: Where the model runs and values are counted.
        threads: Number of threads, one per core by default.
    """

    def __init__(
        self, model: Model, before: CalibrationState, nonfinite: Nonfinite, device: Device, threads: int | None
    ) -> None:
        names = before.passes[before.pass_index]
        self.data = DataFingerprint()
        self._batches = 0
        self._before = before
        self._nonfinite = nonfinite
        self._threads = threads
        self._float_model = model
        self._model = ObservedModel(model, names, device, threads)
        self._names = names
        self._device = device
        self._accumulators: dict[str, dict[str, Accumulator]] = {}  # by group of batches
        self._data_by_group: dict[str, DataFingerprint] = {}

    def steps(self, batches: Iterable[Batch]) -> Iterator[None]:
        """Measure `batches`, yielding after each batch that was measured.

        Raises:
            DataError: The model fails on a batch, a tensor has NaN or infinite values that are refused, or the data
                differs from that of the interrupted run.
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
        if batch.group not in self._accumulators:
            self._accumulators[batch.group] = {name: self._device.accumulator() for name in self._names}
        accumulators = self._accumulators[batch.group]
        future = pool.submit(DataFingerprint.from_feeds, batch.feeds)
        nonfinite: dict[str, tuple[int, int]] = {}  # number of such values, and of all, by tensor
        for arrays in self._model.run(batch):
            sizes = {name: math.prod(array.shape) for name, array in arrays.items()}
            largest_first = sorted(sizes, key=lambda name: -sizes[name])
            counts = {name: pool.submit(accumulators[name].update, arrays[name]) for name in largest_first}
            nonfinite |= {name: (count.result(), sizes[name]) for name, count in counts.items()}
        if self._nonfinite == "refuse":
            _check_finite_values({name: nonfinite[name] for name in self._names}, batch, self._float_model)
        fingerprint = future.result()
        self._data_by_group[batch.group] = self._data_by_group.get(batch.group, DataFingerprint()) + fingerprint
        return fingerprint

    @property
    def has_new_batches(self) -> bool:
        """Whether more batches were measured than in the state that the pass continued from."""
        return self._batches > self._before.batches

    def tensors(self) -> dict[str, TensorStatistics]:
        """The statistics of the tensors of this pass so far."""
        before = self._before.statistics.tensors
        merged = {name: before[name] for name in self._names if name in before}
        for tensors in self.tensors_by_group().values():
            merged |= {name: merged[name].merge(new) if name in merged else new for name, new in tensors.items()}
        return merged

    def tensors_by_group(self) -> dict[str, dict[str, TensorStatistics]]:
        """The statistics of the batches of each group that this pass measured."""
        return {
            group: {name: accumulator.statistics() for name, accumulator in accumulators.items()}
            for group, accumulators in self._accumulators.items()
        }

    @property
    def data_by_group(self) -> dict[str, DataFingerprint]:
        """The data of each group that this pass measured."""
        return dict(self._data_by_group)

    def state(self) -> CalibrationState:
        """The state of the calibration so far."""
        return self._before.after(self.tensors(), self.data, self._batches)


def _check_finite_values(nonfinite: Mapping[str, tuple[int, int]], batch: Batch, model: Model) -> None:
    for name, (count, size) in nonfinite.items():  # in graph order: the first tensor is where they arise
        if count:
            _check_weights(model)
            raise DataError(
                f"{batch.origin}: tensor {name!r} has {count} NaN or infinite values of {size}: "
                "remove the batch, or skip and count such values with `nonfinite=skip`"
            )


def _check_weights(model: Model) -> None:
    """Make sure that no weight is NaN, which no choice of data would help against."""
    for value in model.to_ir().graph.initializers.values():
        tensor = value.const_value
        if (
            tensor is not None
            and tensor.dtype.is_floating_point()
            and read_once(tensor, lambda array: np.isnan(array).any())
        ):
            raise ModelError(f"{model.path}: weight {value.name!r} has NaN values: train or export the model again")
