"""Copies batches to the device, one ahead of TensorRT."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from trt_ptq.calibrators.tensorrt.batch_validation import BatchValidator
from trt_ptq.calibrators.tensorrt.device_memory.buffers import DeviceBuffers, DoubleBuffer, OpenBuffers
from trt_ptq.calibrators.tensorrt.network_inputs import InputSpec
from trt_ptq.errors import DataError
from trt_ptq.provenance import DataFingerprint
from trt_ptq.types import Batch, BatchSource, ProgressCallback


class BatchPrefetcher:
    """One pass over the data. A thread loads, checks and copies a batch while TensorRT works on the previous one.

    `data` is the fingerprint of the batches so far, before a small last batch was filled up; `ended` is true once all
    batches were given to TensorRT.
    """

    def __init__(
        self,
        source: BatchSource,
        inputs: Mapping[str, InputSpec] | None,
        open_buffers: OpenBuffers,
        progress: ProgressCallback,
    ) -> None:
        self._batches = iter(progress(source, "Calibrating", source.total))
        self._validator = BatchValidator(inputs)
        self._open_buffers = open_buffers
        self._buffers: DeviceBuffers | None = None
        self._double_buffer: DoubleBuffer | None = None
        self._loader = ThreadPoolExecutor(1, "calibration-batches")
        self._next: Future[dict[str, int] | None] | None = None
        self.data = DataFingerprint()
        self.batches = 0
        self.ended = False

    @property
    def repeated_samples(self) -> int:
        return self._validator.repeated_samples

    def pointers(self, names: Sequence[str]) -> list[int] | None:
        """Device pointers of the next batch in the order of `names`; None after the last.

        Raises:
            DataError: there are no batches, or the batch does not fit the network.
            EngineError: no device, not enough memory, or a copy failed.
        """
        if self._buffers is None:
            self._buffers = self._open_buffers()  # in TensorRT's thread, for its CUDA context
        pointers = (self._next or self._load_next(names)).result()
        if pointers is None:
            self.ended = True
            return None
        self._buffers.synchronize()
        self._next = self._load_next(names)
        return [pointers[name] for name in names]

    def close(self) -> None:
        """Free the buffers, after the batch that is being loaded. Safe to call twice."""
        self._loader.shutdown(cancel_futures=True)
        try:
            if isinstance(self._batches, Generator):
                self._batches.close()  # ends the progress display
        finally:
            self._double_buffer = None  # its arrays are in memory that is freed next
            if self._buffers is not None:
                self._buffers.close()

    def _load_next(self, names: Sequence[str]) -> Future[dict[str, int] | None]:
        return self._loader.submit(self._load, tuple(names))

    def _load(self, names: Sequence[str]) -> dict[str, int] | None:
        batch: Batch | None = next(self._batches, None)
        if batch is None:
            if not self.batches:
                raise DataError("the calibration data has no batches (a generator yields its batches only once)")
            return None
        arrays = self._validator.validate(batch, names)
        if self._double_buffer is None:
            assert self._buffers is not None
            self._double_buffer = DoubleBuffer(self._buffers, {name: array.nbytes for name, array in arrays.items()})
        self.data += DataFingerprint.from_feeds(batch.feeds)
        self.batches += 1
        return self._double_buffer.upload(arrays)
