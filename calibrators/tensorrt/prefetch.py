"""Brings batches to the device, one ahead of TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from trt_ptq.calibrators.tensorrt.batch_validation import BatchValidator, as_batches
from trt_ptq.calibrators.tensorrt.buffers import DeviceBuffers
from trt_ptq.calibrators.tensorrt.double_buffer import DoubleBuffer
from trt_ptq.calibrators.tensorrt.network_inputs import InputSpec
from trt_ptq.provenance import DataFingerprint
from trt_ptq.types import Batch, ProgressCallback

OpenBuffers = Callable[[], DeviceBuffers]


class BatchPrefetcher:
    """One pass over the data. A thread of its own loads, checks and copies a batch while TensorRT works on the last.

    `data` is the fingerprint of the batches so far, before a short one was filled up; `ended` says that all were
    given, to the last.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        inputs: Mapping[str, InputSpec] | None,
        open_buffers: OpenBuffers,
        progress: ProgressCallback,
    ) -> None:
        total = len(batches) if isinstance(batches, Sized) else getattr(batches, "total", None)
        self._source = iter(progress(as_batches(batches), "Calibrating", total))
        self._admission = BatchValidator(inputs)
        self._open_buffers = open_buffers
        self._buffers: DeviceBuffers | None = None
        self._staging: DoubleBuffer | None = None
        self._loader = ThreadPoolExecutor(1, "calibration-batches")
        self._next: Future[dict[str, int] | None] | None = None
        self.data = DataFingerprint()
        self.batches = 0
        self.ended = False

    @property
    def repeated_samples(self) -> int:
        return self._admission.repeated_samples

    def pointers(self, names: Sequence[str]) -> list[int] | None:
        """Device pointers of the next batch in the order of `names`; None after the last.

        Raises:
            DataError: the batch does not fit.
            EngineError: no device, not enough memory, a failing copy.
            MissingPackageError: nothing to reach the device with.
        """
        if self._buffers is None:
            self._buffers = self._open_buffers()  # in TensorRT's thread: its CUDA context is the one to use
        pointers = (self._next or self._ahead(names)).result()
        if pointers is None:
            self.ended = True
            return None
        self._buffers.synchronize()
        self._next = self._ahead(names)
        return [pointers[name] for name in names]

    def close(self) -> None:
        """Free the buffers, once the batch that is being loaded is done with them. Safe to call twice."""
        self._loader.shutdown(cancel_futures=True)
        try:
            if isinstance(self._source, Generator):
                self._source.close()  # the progress display ends
        finally:
            self._staging = None  # its arrays lie in memory that is about to go
            if self._buffers is not None:
                self._buffers.close()

    def _ahead(self, names: Sequence[str]) -> Future[dict[str, int] | None]:
        return self._loader.submit(self._load, tuple(names))

    def _load(self, names: Sequence[str]) -> dict[str, int] | None:
        batch: Batch | None = next(self._source, None)
        if batch is None:
            return None
        arrays = self._admission.validate(batch, names)
        if self._staging is None:
            assert self._buffers is not None
            self._staging = DoubleBuffer(self._buffers, {name: array.nbytes for name, array in arrays.items()})
        self.data += DataFingerprint.from_feeds(batch.feeds)
        self.batches += 1
        return self._staging.send(arrays)
