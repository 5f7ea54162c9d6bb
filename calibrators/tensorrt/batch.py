"""Calibrators that give batches to TensorRT, which computes the ranges with its own algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from trt_ptq._internal.files import check_writable
from trt_ptq.calibrators.tensorrt.base import Calibrator, running_version, tensorrt_with_calibrators
from trt_ptq.calibrators.tensorrt.buffers import OpenBuffers, open_buffers
from trt_ptq.calibrators.tensorrt.cache_file import CacheRecord, read_cache, sha256, write_cache
from trt_ptq.calibrators.tensorrt.calibration_warning import notify
from trt_ptq.calibrators.tensorrt.network_inputs import network_inputs, tensor_names
from trt_ptq.calibrators.tensorrt.prefetch import BatchPrefetcher
from trt_ptq.errors import EngineError, TableError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import ProgressCallback, no_progress
from trt_ptq.version import __version__


class BatchCalibrator(Calibrator):
    """Gives batches to TensorRT and saves the cache that TensorRT computes from them.

    Args:
        data: a BatchSource, or any iterable of dicts of numpy arrays by input name, float32 where the network takes
            any floating-point type, all in the calibration shape. A smaller last batch is filled up by repeating its
            samples, with a warning. Batches are loaded in a thread, one ahead of TensorRT.
        cache: file for the result, with a `.json` beside it that records its origin. If the file exists, it is used
            and no batch is read.
        network: the `trt.INetworkDefinition`; batches are checked against it before the first one is copied. Without
            it, they are only checked against the first batch.
        profile: the calibration profile, for a network with dynamic dimensions; TensorRT reads its OPT shapes.
        model: identity of the ONNX model; a cache of another model is refused.
        progress: wraps the batches to show progress.
        open_buffers: opens device memory; the default uses pycuda if it is installed, otherwise the CUDA driver.

    Raises:
        TableError: `cache` is damaged, or belongs to another model, TensorRT version or algorithm.
        OutputError: `cache` cannot be written.
        UsageError: an input of `network` has a type that cannot be calibrated, or a dynamic shape without `profile`.
        EngineError: this TensorRT has no calibrators.
        MissingPackageError: TensorRT is not installed.
    """

    ranges: str

    def __init__(
        self,
        data: Iterable[Any],
        cache: str | PathLike[str] | None = None,
        *,
        network: Any = None,
        profile: Any = None,
        model: ModelIdentity | None = None,
        progress: ProgressCallback = no_progress,
        open_buffers: OpenBuffers = open_buffers,
    ) -> None:
        super().__init__()
        self._data = data
        self._inputs = None if network is None else network_inputs(network, profile)
        self._model = model
        self._progress = progress
        self._open_buffers = open_buffers
        self._prefetcher: BatchPrefetcher | None = None
        self._cache_path = None if cache is None else Path(cache)
        self._cache: bytes | None = None  # read from the file, or computed by TensorRT
        if self._cache_path is not None:
            check_writable(self._cache_path)
            existing = read_cache(self._cache_path, running_version(), self.algorithm, self.ranges, model)
            if existing is not None:
                if network is not None and not existing.scales().keys() & tensor_names(network):
                    raise TableError(
                        f"{self._cache_path}: names no tensor of this network: it belongs to another model"
                    )
                self._cache = existing.to_bytes()
        if self._inputs is None and self._cache is None:
            notify("without `network`, batches are only checked against the first batch, not against the network")

    def pointers(self, names: Sequence[str]) -> list[int] | None:
        if self._cache is not None:
            raise EngineError(f"TensorRT did not accept the {self.ranges} cache")
        if self._prefetcher is None:
            self._prefetcher = BatchPrefetcher(self._data, self._inputs, self._open_buffers, self._progress)
        return self._prefetcher.pointers(names)

    def cache_to_serve(self) -> bytes | None:
        if self._cache is None and self._prefetcher is not None:
            raise EngineError("an earlier build stopped before the end of the data: create a new calibrator")
        return self._cache

    def accept_cache(self, content: bytes) -> None:
        if self._cache is not None:
            return  # TensorRT returns the cache that it was served: nothing was measured
        prefetcher = self._prefetcher
        if prefetcher is None or not prefetcher.ended:
            raise EngineError("TensorRT stopped calibrating before the end of the data (interrupted?): no cache saved")
        self._cache = self.finish_cache(content)
        if self._cache_path is not None:
            record = CacheRecord(
                algorithm=self.algorithm,
                ranges=self.ranges,
                tensorrt=tensorrt_with_calibrators().__version__,
                trt_ptq=__version__,
                model=self._model,
                data=prefetcher.data,
                batches=prefetcher.batches,
                repeated_samples=prefetcher.repeated_samples,
                sha256=sha256(self._cache),
            )
            write_cache(self._cache_path, self._cache, record)

    def finish_cache(self, content: bytes) -> bytes:
        """The cache to save, from the cache that TensorRT computed."""
        return content

    def release(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()


class EntropyCalibrator(BatchCalibrator):
    """A `trt.IInt8EntropyCalibrator2`: TensorRT's entropy calibration, the only algorithm for DLA.

    For the arguments see BatchCalibrator.
    """

    interface = "IInt8EntropyCalibrator2"
    algorithm = "EntropyCalibration2"
    ranges = "entropy"


class MinMaxCalibrator(BatchCalibrator):
    """A `trt.IInt8MinMaxCalibrator`: the range of a tensor is its largest magnitude.

    For the arguments see BatchCalibrator.
    """

    interface = "IInt8MinMaxCalibrator"
    algorithm = "MinMaxCalibration"
    ranges = "minmax"
