"""Runs engines of TensorRT and of TensorRT for RTX: for metrics, comparisons with ONNX models, benchmarks, inspection.

Polygraphy compares INT8 engines with FP16 engines (evaluation/compare_engines.py), but its runner gives no device times
and does not know TensorRT for RTX. Both load engines with loader.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from trt_ptq._internal.hardware.cuda import Device
from trt_ptq.engines.int8_io import dequantized, quantized_feeds
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.running.debug_listener import DebugTensors
from trt_ptq.engines.running.kernel_times import KernelTimes
from trt_ptq.engines.running.loader import load_engine
from trt_ptq.errors import DataError, EngineError
from trt_ptq.types import Array, Feeds, ShapeProfile


class EngineSession:
    """A loaded engine, as a context manager that frees the engine and its buffers at the end.

    `precision` comes from the manifest ("unknown" without one), `gpu` is the name of the device; `dtypes` are numpy
    types by tensor name. Inputs and outputs that the manifest has scales of are fed and read as float values.

    Args:
        path: the engine file.

    Raises:
        EngineError, MissingPackageError: see `load_engine`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._context: Any = None
        self._loaded = load_engine(path)
        self.engine, self.gpu = self._loaded.engine, self._loaded.gpu
        manifest = self._loaded.manifest
        self.precision = manifest.precision if manifest else "unknown"
        self._int8_io = manifest.int8_io if manifest else {}
        trt = self._loaded.library.module
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = tuple(name for name in names if modes[name] == trt.TensorIOMode.INPUT)
        self.outputs = tuple(name for name in names if modes[name] == trt.TensorIOMode.OUTPUT)
        self._stored = {name: np.dtype(trt.nptype(self.engine.get_tensor_dtype(name))) for name in names}
        self.dtypes = {**self._stored, **dict.fromkeys(self._int8_io, np.dtype(np.float32))}

    def __enter__(self) -> EngineSession:
        with ExitStack() as stack:
            self._device = stack.enter_context(Device())
            self._context = self.engine.create_execution_context()
            if self._context is None:
                raise EngineError(f"{self.path}: cannot run: {self._loaded.builder_log.first()}")
            self._buffers: dict[str, tuple[int, int]] = {}  # address and size by tensor
            self._debug_tensors: DebugTensors | None = None
            self._kernel_times: KernelTimes | None = None
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._debug_tensors = self._kernel_times = None
        self._context = None  # before the CUDA context of its memory is released
        self.engine = None  # a reference to the session must not keep the engine on the device
        del self._loaded
        self._stack.__exit__(kind, error, traceback)

    @property
    def device_memory_bytes(self) -> int:
        """Device memory in bytes that TensorRT needs to run, without weights and the buffers of inputs and outputs."""
        # The older property is 32 bits wide.
        return int(getattr(self.engine, "device_memory_size_v2", None) or self.engine.device_memory_size)

    def example_feeds(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Random normal inputs (seeded), zeros for integers; in the given shapes, or in those of the profile's OPT."""
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

    def inspect(self) -> EnginePlan:
        """The kernels of the engine, as the inspector lists them.

        Inside `with`, at the shapes that the engine is optimized for; outside, dynamic sizes are not known.

        Raises:
            EngineError: the engine contains only the names of its layers.
        """
        library = self._loaded.library
        inspector = self.engine.create_engine_inspector()
        if self._context is not None:
            arrays = self._upload(self.example_feeds({}))
            inspector.execution_context = self._context
            self._device.synchronize()
            del arrays  # the copies read them until here
        text = inspector.get_engine_information(library.module.LayerInformationFormat.JSON)
        return EnginePlan.from_inspector(text, source=library.name, version=library.version, where=str(self.path))

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run the engine on one batch. Returns outputs by name.

        Raises:
            DataError: names, types or shapes do not fit the engine.
            EngineError: the engine fails, or there is not enough device memory.
        """
        arrays = self._upload(feeds)
        results = self._bind_outputs()
        self._execute()
        for name, array in results.items():
            self._device.download(array, self._buffers[name][0])
        self._device.synchronize()
        del arrays  # the copies read them until here
        return dequantized(results, self._int8_io)

    def debug(self, feeds: Feeds) -> dict[str, Array]:
        """Run an engine that was built with debug tensors on one batch. Returns these tensors by name.

        Raises:
            DataError, EngineError: see `run`; or this TensorRT has no debug tensors.
        """
        library = self._loaded.library
        library.require(hasattr(self._context, "set_debug_listener"), "debug tensors (TensorRT 10 and later have them)")
        if self._debug_tensors is None:
            self._debug_tensors = DebugTensors(library.module, self._device)
            if not (
                self._context.set_debug_listener(self._debug_tensors.listener)
                and self._context.set_all_tensors_debug_state(True)
            ):
                raise EngineError(f"{self.path}: refuses a debug listener: {self._loaded.builder_log.first()}")
        try:
            self.run(feeds)
        except EngineError:
            self._debug_tensors.take()  # the listener's own error says more
            raise
        return self._debug_tensors.take()

    def profiles(self) -> dict[str, ShapeProfile]:
        """The shapes that the engine accepts, by input with dynamic sizes."""
        dynamic = [name for name in self.inputs if -1 in tuple(self.engine.get_tensor_shape(name))]
        return {
            name: ShapeProfile(*(tuple(shape) for shape in self.engine.get_tensor_profile_shape(name, 0)))
            for name in dynamic
        }

    def time(self, feeds: Feeds, runs: int, warm_up: int) -> list[float]:
        """Time the engine on one batch.

        Args:
            feeds: input arrays by name.
            runs: number of measured runs.
            warm_up: number of runs before them.

        Returns:
            Milliseconds of each run on the device, without the copies from and to the host.

        Raises:
            DataError, EngineError: see `run`.
        """
        arrays = self._upload(feeds)
        self._bind_outputs()
        for _ in range(warm_up):
            self._execute()
        self._device.synchronize()
        del arrays
        stopwatch = self._device.stopwatch()
        try:
            times = []
            for _ in range(runs):
                stopwatch.start()
                self._execute()
                times.append(stopwatch.stop())
            return times
        finally:
            stopwatch.close()

    def kernel_times(self, feeds: Feeds, runs: int = 50, warm_up: int = 10) -> dict[str, float]:
        """Time each kernel on one batch, by TensorRT's profiler, which makes the whole engine somewhat slower.

        Args:
            feeds: input arrays by name.
            runs: number of measured runs.
            warm_up: number of runs before them.

        Returns:
            Median seconds by name of the kernel; the names are those of `inspect`.

        Raises:
            DataError, EngineError: see `run`.
        """
        arrays = self._upload(feeds)
        self._bind_outputs()
        if self._kernel_times is None:
            self._kernel_times = KernelTimes(self._loaded.library.module)
            self._context.profiler = self._kernel_times.profiler  # from now on each run ends with its report
        for run in range(warm_up + runs):
            if run == warm_up:
                self._kernel_times.clear()
            self._execute()
            self._device.synchronize()
        del arrays  # the copies read them until here
        return self._kernel_times.median_seconds()

    def _upload(self, feeds: Feeds) -> dict[str, Array]:
        """Start copying the inputs. Returns the arrays that have to stay alive until the device has read them."""
        if feeds.keys() != set(self.inputs):
            raise DataError(
                f"{self.path}: the engine has inputs {', '.join(self.inputs)}, the batch {', '.join(feeds)}"
            )
        arrays = {name: np.ascontiguousarray(feeds[name]) for name in self.inputs}
        for name, array in arrays.items():
            if array.dtype != self.dtypes[name]:
                raise DataError(f"{self.path}: input {name!r} is {self.dtypes[name]}, the batch has {array.dtype}")
        arrays = quantized_feeds(arrays, self._int8_io)
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                minimum, _, maximum = self.engine.get_tensor_profile_shape(name, 0)
                raise DataError(
                    f"{self.path}: input {name!r} takes shapes from {list(minimum)} to {list(maximum)}, the batch has "
                    f"{list(array.shape)}"
                )
            if self.engine.is_shape_inference_io(name):  # TensorRT reads shape inputs on the host
                self._context.set_tensor_address(name, array.ctypes.data)
                continue
            self._device.upload(array, self._bind(name, array.nbytes))
        return arrays

    def _bind_outputs(self) -> dict[str, Array]:
        results = {}
        for name in self.outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise EngineError(
                    f"{self.path}: the shape of output {name!r} depends on the data, which is not supported"
                )
            results[name] = np.empty(shape, self._stored[name])
            self._bind(name, results[name].nbytes)
        return results

    def _bind(self, name: str, size_bytes: int) -> int:
        """Give TensorRT a buffer for the tensor, a larger one if needed. Returns its address."""
        pointer, capacity_bytes = self._buffers.get(name, (0, -1))
        if capacity_bytes < size_bytes:
            if capacity_bytes >= 0:
                self._device.free(pointer)
                del self._buffers[name]
            pointer = self._allocate(name, size_bytes)
            self._buffers[name] = pointer, size_bytes
        self._context.set_tensor_address(name, pointer)
        return pointer

    def _allocate(self, name: str, size_bytes: int) -> int:
        try:
            return self._device.allocate(size_bytes)
        except MemoryError as error:
            free, total = self._device.memory()
            raise EngineError(
                f"{self.path}: no device memory for {size_bytes:,} bytes of {name!r} ({free:,} of {total:,} bytes are "
                f"free): {error}; use a smaller batch, or free the GPU"
            ) from error

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineError(f"{self.path}: failed on this batch: {self._loaded.builder_log.first()}")
