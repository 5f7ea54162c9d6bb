"""Calibrators that give batches to TensorRT, which computes the ranges with its own algorithm."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trt_ptq._internal.files import check_writable
from trt_ptq.calibrators.tensorrt.base import Calibrator, running_version, tensorrt_with_calibrators
from trt_ptq.calibrators.tensorrt.cache_file import CacheRecord, read_cache, sha256, write_cache
from trt_ptq.calibrators.tensorrt.calibration_warning import notify
from trt_ptq.calibrators.tensorrt.device_memory.buffers import OpenBuffers, open_buffers
from trt_ptq.calibrators.tensorrt.network_inputs import InputSpec, network_inputs, tensor_names
from trt_ptq.calibrators.tensorrt.prefetch import BatchPrefetcher
from trt_ptq.data.adapters import FunctionSource
from trt_ptq.data.feeds import FeedsReader, is_array
from trt_ptq.data.open import Preprocess, open_data
from trt_ptq.errors import EngineError, TableError, UsageError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import BatchSource, ProgressCallback, TensorSpec, no_progress
from trt_ptq.version import __version__


class BatchCalibrator(Calibrator):
    """Gives batches to TensorRT and saves the cache that TensorRT computes from them.

    Args:
        data: a folder, a file, a list, a generator, a function, a torch DataLoader, a Hugging Face dataset or a
            BatchSource; for the forms see `trt_ptq.data.open.open_data`. Batches have the calibration shape, and are
            float32 where the network takes any floating-point type. A smaller last batch is filled up by repeating its
            samples, with a warning. Batches are loaded in a thread, one ahead of TensorRT.
        cache: file for the result, with a `.json` beside it that records its origin. If the file exists, it is used
            and no batch is read.
        network: the `trt.INetworkDefinition`: batches are checked against it before the first one is copied. Without
            it, they are only checked against the first batch, and `data` must be in batches already.
        profile: the calibration profile, for a network with dynamic dimensions; TensorRT reads its OPT shapes.
        preprocess: for a folder of images: a function, or "file.py:function", from a PIL image to the array of one
            sample.
        model: identity of the ONNX model; a cache of another model is refused.
        progress: wraps the batches to show progress.
        open_buffers: opens device memory: `PycudaBuffers`, `CudaBindingsBuffers`, `TorchBuffers`, or a class of yours
            with their methods; the default uses pycuda if it is installed, otherwise the CUDA driver.

    Raises:
        TableError: `cache` is damaged, or belongs to another model, TensorRT version or algorithm.
        OutputError: `cache` cannot be written.
        DataError: there is no such data, or not in a supported form.
        UsageError: an input of `network` has a type that cannot be calibrated, or a dynamic shape without `profile`;
            or `data` needs `network` or `preprocess`.
        EngineError: this TensorRT has no calibrators.
        MissingPackageError: TensorRT is not installed.
    """

    ranges: str

    def __init__(
        self,
        data: Any,
        cache: str | os.PathLike[str] | None = None,
        *,
        network: Any = None,
        profile: Any = None,
        preprocess: str | Preprocess | None = None,
        model: ModelIdentity | None = None,
        progress: ProgressCallback = no_progress,
        open_buffers: OpenBuffers = open_buffers,
    ) -> None:
        super().__init__()
        self._data = data  # a BatchSource, once it is open
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
        if self._cache is not None:
            return
        if self._inputs is None:
            _check_in_batches(data)
            notify("without `network`, batches are only checked against the first batch, not against the network")
        else:
            self._data = _open_batches(data, self._inputs, preprocess)

    def pointers(self, names: Sequence[str]) -> list[int] | None:
        if self._cache is not None:
            raise EngineError(f"TensorRT did not accept the {self.ranges} cache")
        if self._prefetcher is None:
            source = self._data
            if self._inputs is None:  # their names are known only now
                source = _open_batches(source, {name: InputSpec(np.float32, ()) for name in names})
            self._prefetcher = BatchPrefetcher(source, self._inputs, self._open_buffers, self._progress)
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


def _open_batches(
    data: Any, inputs: Mapping[str, InputSpec], preprocess: str | Preprocess | None = None
) -> BatchSource:
    """A source of batches for these inputs; an iterator is read only as TensorRT asks for batches."""
    specs = tuple(TensorSpec(name, np.dtype(spec.dtype), spec.shape) for name, spec in inputs.items())
    batch_size = next((spec.shape[0] for spec in inputs.values() if spec.shape), 1)
    if isinstance(data, Iterator):
        name = getattr(data, "__name__", type(data).__name__)
        return FunctionSource(name, lambda: data, FeedsReader(specs), batch_size)
    return open_data(data, specs, batch_size=batch_size, preprocess=preprocess)


def _check_in_batches(data: Any) -> None:
    """Check that `data` is in batches already: without the network, their size is unknown."""
    if isinstance(data, (str, os.PathLike, Mapping)) or is_array(data) or hasattr(data, "column_names"):
        raise UsageError(
            f"`network` is missing (and `profile`, if it has dynamic dimensions): they define the size of the batches "
            f"into which data of type {type(data).__name__} is cut"
        )
