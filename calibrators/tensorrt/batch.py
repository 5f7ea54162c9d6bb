"""Calibrators that TensorRT itself measures with: batches in, its own algorithm, its own cache out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from trt_ptq._internal.files import check_writable
from trt_ptq.calibrators.tensorrt.base import Calibrator
from trt_ptq.calibrators.tensorrt.buffers import open_buffers
from trt_ptq.calibrators.tensorrt.cache_file import CacheRecord, read_cache, sha256, write_cache
from trt_ptq.calibrators.tensorrt.calibration_warning import notify
from trt_ptq.calibrators.tensorrt.network_inputs import network_inputs, tensor_names
from trt_ptq.calibrators.tensorrt.prefetch import BatchPrefetcher, OpenBuffers
from trt_ptq.calibrators.tensorrt.tensorrt_subclass import running_version, tensorrt_with_calibrators
from trt_ptq.errors import EngineError, TableError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import ProgressCallback, no_progress
from trt_ptq.version import __version__


class BatchCalibrator(Calibrator):
    """Feeds batches, and keeps TensorRT's cache.

    Args:
        batches: a BatchSource, or any iterable of feed dicts (numpy arrays by input name, float32 where the network
            takes any floating-point type), all of the calibration shape. A short last batch is filled up by
            repeating its samples; a warning is given. Read in a thread of its own, one batch ahead.
        cache: a file to keep the result in, with a `.json` beside it that says what it was made from; if it is
            there, it is used and no batch is read.
        network: the `trt.INetworkDefinition`: batches are checked against it before the first one is copied. Without
            it, they are only checked against the first one.
        profile: the calibration profile, for a network with open dimensions; its OPT shapes are what is read.
        model: identity of the ONNX model; a cache of another one is refused.
        track: wraps the batches to show progress.
        open_buffers: how to reach the device; pycuda, cuda-bindings or torch, what is there, by default.

    Raises:
        TableError: `cache` is damaged, or of another model, TensorRT version or algorithm.
        OutputError: `cache` cannot be written.
        UsageError: the network's inputs cannot be fed.
        EngineError: this TensorRT has no calibrators.
        MissingPackageError: TensorRT is not installed.
    """

    ranges: str

    def __init__(
        self,
        batches: Iterable[Any],
        cache: str | PathLike[str] | None = None,
        *,
        network: Any = None,
        profile: Any = None,
        model: ModelIdentity | None = None,
        progress: ProgressCallback = no_progress,
        open_buffers: OpenBuffers = open_buffers,
    ) -> None:
        super().__init__()
        self._batches = batches
        self._inputs = None if network is None else network_inputs(network, profile)
        self._model = model
        self._progress = progress
        self._open_buffers = open_buffers
        self._feeder: BatchPrefetcher | None = None
        self._path = None if cache is None else Path(cache)
        self._served: bytes | None = None
        if self._path is not None:
            check_writable(self._path)
            found = read_cache(self._path, running_version(), self.algorithm, self.ranges, model)
            if found is not None and network is not None and not found.scales().keys() & tensor_names(network):
                raise TableError(f"{self._path}: names no tensor of this network: it is a cache of another model")
            self._served = None if found is None else found.to_bytes()
        if self._inputs is None and self._served is None:
            notify("no network was given, so that batches are checked only against the first one, not against TensorRT")

    def pointers(self, names: Sequence[str]) -> list[int] | None:
        if self._served is not None:
            raise EngineError(f"TensorRT did not take the {self.ranges} cache that it was given")
        if self._feeder is None:
            self._feeder = BatchPrefetcher(self._batches, self._inputs, self._open_buffers, self._progress)
        return self._feeder.pointers(names)

    def cache_to_serve(self) -> bytes | None:
        if self._served is None and self._feeder is not None:
            raise EngineError("an earlier build stopped in the middle of the data: make a new calibrator for this one")
        return self._served

    def accept_cache(self, content: bytes) -> None:
        if self._served is not None:
            return  # TensorRT gives back what it was served: nothing was measured
        feeder = self._feeder
        if feeder is None or not feeder.ended:
            raise EngineError("TensorRT stopped calibrating before the data ended (interrupted?): no cache was kept")
        self._served = self.finished(content)
        if self._path is not None:
            record = CacheRecord(
                algorithm=self.algorithm,
                ranges=self.ranges,
                tensorrt=tensorrt_with_calibrators().__version__,
                trt_ptq=__version__,
                model=self._model,
                data=feeder.data,
                batches=feeder.batches,
                repeated_samples=feeder.repeated_samples,
                sha256=sha256(self._served),
            )
            write_cache(self._path, self._served, record)

    def finished(self, content: bytes) -> bytes:
        """The cache to keep, from the one that TensorRT made."""
        return content

    def close(self) -> None:
        if self._feeder is not None:
            self._feeder.close()


class EntropyCalibrator(BatchCalibrator):
    """A `trt.IInt8EntropyCalibrator2`: TensorRT's own entropy calibration, which DLA needs too."""

    interface = "IInt8EntropyCalibrator2"
    algorithm = "EntropyCalibration2"
    ranges = "entropy"


class MinMaxCalibrator(BatchCalibrator):
    """A `trt.IInt8MinMaxCalibrator`: the largest magnitude of each tensor."""

    interface = "IInt8MinMaxCalibrator"
    algorithm = "MinMaxCalibration"
    ranges = "minmax"
