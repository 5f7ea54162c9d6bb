"""An engine that runs: feeds in, outputs out, with buffers on the device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from trt_ptq.engines.running.device_memory import Device
from trt_ptq.engines.running.inspector import Inspection, parse_inspection
from trt_ptq.engines.running.loader import load_engine
from trt_ptq.errors import DataError, EngineError
from trt_ptq.types import Array, Feeds


class EngineSession:
    """A loaded engine as a context manager; leaving it frees engine and buffers.

    `precision` is the manifest's ("unknown" without one), `gpu` the device it runs on; `dtypes` are numpy's by tensor.
    """

    def __init__(self, path: Path) -> None:
        """Load the engine.

        Raises:
            EngineError, MissingPackageError: see `load_engine`.
        """
        self.path = path
        self._loaded = load_engine(path)
        self.engine, self.gpu = self._loaded.engine, self._loaded.gpu
        self.precision = self._loaded.manifest.precision if self._loaded.manifest else "unknown"
        trt = self._loaded.library.module
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = tuple(name for name in names if modes[name] == trt.TensorIOMode.INPUT)
        self.outputs = tuple(name for name in names if modes[name] == trt.TensorIOMode.OUTPUT)
        self.dtypes = {name: np.dtype(trt.nptype(self.engine.get_tensor_dtype(name))) for name in names}

    def __enter__(self) -> EngineSession:
        with ExitStack() as stack:
            self._device = stack.enter_context(Device())
            self._context: Any = self.engine.create_execution_context()
            if self._context is None:
                raise EngineError(f"{self.path}: cannot be run: {self._loaded.builder_log.first()}")
            self._buffers: dict[str, tuple[int, int]] = {}  # address and size by tensor
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context = None  # before its device memory's context goes
        self.engine = None  # a session that is kept must not keep the engine on the device
        del self._loaded
        self._stack.__exit__(kind, error, traceback)

    @property
    def device_memory_bytes(self) -> int:
        """What TensorRT needs on the device to run, beside weights and our buffers."""
        # The older property is 32 bits wide.
        return int(getattr(self.engine, "device_memory_size_v2", None) or self.engine.device_memory_size)

    def example_feeds(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Seeded normal numbers, zeros for integers; in `shapes`, or else in the shape that the engine is tuned for."""
        random = np.random.default_rng(0)
        feeds = {}
        for name in self.inputs:
            if self.engine.is_shape_inference_io(name):
                feeds[name] = np.array(self.engine.get_tensor_profile_values(0, name)[1], self.dtypes[name])
                continue
            shape = shapes.get(name) or tuple(self.engine.get_tensor_shape(name))
            if -1 in shape:
                shape = tuple(self.engine.get_tensor_profile_shape(name, 0)[1])
            floating = np.issubdtype(self.dtypes[name], np.floating)
            feeds[name] = (random.standard_normal(shape) if floating else np.zeros(shape)).astype(self.dtypes[name])
        return feeds

    def inspect(self) -> Inspection:
        """What the engine is made of.

        Raises:
            EngineError: the engine tells only the names of its layers.
        """
        information = self._loaded.library.module.LayerInformationFormat.JSON
        text = self.engine.create_engine_inspector().get_engine_information(information)
        return parse_inspection(text, str(self.path))

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs by name for one batch.

        Raises:
            DataError: other inputs, types or shapes than the engine has.
            EngineError: the engine fails, or there is not enough device memory.
        """
        arrays = self._upload(feeds)
        results = self._bind_outputs()
        self._execute()
        for name, array in results.items():
            self._device.download(array, self._buffers[name][0])
        self._device.synchronize()
        del arrays  # the copies read from them until here
        return results

    def time(self, feeds: Feeds, runs: int, warm_up: int) -> list[float]:
        """Milliseconds of each of `runs` runs on the device, without copies, after `warm_up` runs that do not count.

        Raises:
            DataError, EngineError: as `run`.
        """
        arrays = self._upload(feeds)
        self._bind_outputs()
        for _ in range(warm_up):
            self._execute()
        self._device.synchronize()
        del arrays
        watch = self._device.stopwatch()
        try:
            times = []
            for _ in range(runs):
                watch.start()
                self._execute()
                times.append(watch.stop())
            return times
        finally:
            watch.close()

    def _upload(self, feeds: Feeds) -> dict[str, Array]:
        """Copy the inputs; returns what is copied from, to be kept until the device has read it."""
        if feeds.keys() != set(self.inputs):
            raise DataError(f"{self.path} has inputs {', '.join(self.inputs)}, and was fed {', '.join(feeds)}")
        arrays = {name: np.ascontiguousarray(feeds[name]) for name in self.inputs}
        for name, array in arrays.items():
            if array.dtype != self.dtypes[name]:
                raise DataError(f"{self.path}: input {name!r} is {self.dtypes[name]}, and was fed {array.dtype}")
            if not self._context.set_input_shape(name, array.shape):
                least, _, most = self.engine.get_tensor_profile_shape(name, 0)
                raise DataError(
                    f"{self.path}: input {name!r} takes shapes from {list(least)} to {list(most)}, and was fed "
                    f"{list(array.shape)}"
                )
            if self.engine.is_shape_inference_io(name):  # TensorRT reads shapes on the host
                self._context.set_tensor_address(name, array.ctypes.data)
                continue
            self._device.upload(self._bind(name, array.nbytes), array)
        return arrays

    def _bind_outputs(self) -> dict[str, Array]:
        results = {}
        for name in self.outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise EngineError(f"{self.path}: the shape of output {name!r} depends on the data: not supported here")
            results[name] = np.empty(shape, self.dtypes[name])
            self._bind(name, results[name].nbytes)
        return results

    def _bind(self, name: str, size_bytes: int) -> int:
        """The tensor's buffer, made larger where needed."""
        pointer, room = self._buffers.get(name, (0, -1))
        if room < size_bytes:
            if room >= 0:
                self._device.free(pointer)
                del self._buffers[name]
            pointer = self._device.allocate(size_bytes)
            self._buffers[name] = pointer, size_bytes
        self._context.set_tensor_address(name, pointer)
        return pointer

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineError(f"{self.path}: fails on this batch: {self._loaded.builder_log.first()}")
