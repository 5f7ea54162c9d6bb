"""Runs on the stand-ins, in a subprocess: one small calibration. The last line of stdout is JSON.

The options are JSON in the first argument: see Options. The calibrator is simple on purpose: it shows what the
bindings and the stand-in builder do, without trt_ptq's calibrators.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

FAILURES = {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}
SHAPES = {"image": (4, 3, 2, 2), "mask": (4, 5)}


@dataclasses.dataclass
class Options:
    memory: str = "cuda"  # cuda (cuda-bindings) or pycuda
    calibrator: str = "IInt8EntropyCalibrator2"
    batches: int = 5
    fail_at: int | None = None  # get_batch raises at this batch
    failure: str = "ValueError"  # what it raises, or "empty": it returns [] there
    cache: str | None = None  # the result of read_calibration_cache
    copy: str = "synchronous"  # or asynchronous, or unsynchronized (the mistake)
    short_buffer: bool = False  # buffers of half the size (the mistake)
    onnx: str | None = None  # a model file, instead of a network built by hand


def batch(index: int) -> dict[str, npt.NDArray[np.float32]]:
    generator = np.random.default_rng(index)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


class CudaMemory:
    """Device memory through cuda-bindings' driver API."""

    def __init__(self) -> None:
        self._driver = importlib.import_module("cuda.bindings.driver")
        self._call("cuInit", 0)
        device = self._call("cuDeviceGet", 0)
        self._call("cuCtxSetCurrent", self._call("cuDevicePrimaryCtxRetain", device))
        self._stream = self._call("cuStreamCreate", 0)
        self._device = device

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self._driver, name)(*arguments)
        if error != 0:
            raise RuntimeError(f"{name}: {error.name}")
        return results[0] if results else None

    def allocate(self, size_bytes: int) -> int:
        return int(self._call("cuMemAlloc", size_bytes))

    def copy(self, pointer: int, array: npt.NDArray[np.float32], how: str) -> None:
        if how == "synchronous":
            self._call("cuMemcpyHtoD", pointer, array.ctypes.data, array.nbytes)
            return
        self._call("cuMemcpyHtoDAsync", pointer, array.ctypes.data, array.nbytes, self._stream)
        if how == "asynchronous":
            self._call("cuStreamSynchronize", self._stream)

    def free(self, pointer: int) -> None:
        self._call("cuMemFree", pointer)

    def close(self) -> None:
        self._call("cuStreamDestroy", self._stream)
        self._call("cuDevicePrimaryCtxRelease", self._device)


class PycudaMemory:
    """Device memory through pycuda."""

    def __init__(self) -> None:
        self._driver = importlib.import_module("pycuda.driver")
        self._driver.init()
        self._context = self._driver.Device(0).retain_primary_context()
        self._context.push()
        self._stream = self._driver.Stream()
        self._allocations: dict[int, Any] = {}

    def allocate(self, size_bytes: int) -> int:
        allocation = self._driver.mem_alloc(size_bytes)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def copy(self, pointer: int, array: npt.NDArray[np.float32], how: str) -> None:
        if how == "synchronous":
            self._driver.memcpy_htod(pointer, array)
            return
        self._driver.memcpy_htod_async(pointer, array, self._stream)
        if how == "asynchronous":
            self._stream.synchronize()

    def free(self, pointer: int) -> None:
        self._allocations.pop(pointer).free()

    def close(self) -> None:
        del self._stream
        self._context.pop()


class Recorder:
    """Calls and arguments that the calibrator received."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.names: list[str] = []
        self.written: str | None = None
        self.written_is_read_only: bool | None = None


def make_calibrator(trt: Any, options: Options, memory: CudaMemory | PycudaMemory, seen: Recorder) -> Any:
    base: Any = getattr(trt, options.calibrator)

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.next = 0
            self.pointers: dict[str, int] = {}

        def get_batch_size(self) -> int:
            seen.calls.append("get_batch_size")
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            seen.calls.append("get_batch")
            seen.names = list(names)
            if self.next == options.fail_at:
                if options.failure == "empty":
                    return []
                raise FAILURES[options.failure](f"batch {self.next} is broken")
            if self.next == options.batches:
                return None
            arrays = batch(self.next)
            self.next += 1
            for name in names:
                if name not in self.pointers:
                    size_bytes = arrays[name].nbytes // (2 if options.short_buffer else 1)
                    self.pointers[name] = memory.allocate(size_bytes)
                if not options.short_buffer:
                    memory.copy(self.pointers[name], arrays[name], options.copy)
            return [self.pointers[name] for name in names]

        def read_calibration_cache(self) -> bytes | None:
            seen.calls.append("read_calibration_cache")
            return None if options.cache is None else options.cache.encode()

        def write_calibration_cache(self, cache: memoryview) -> None:
            seen.calls.append("write_calibration_cache")
            seen.written = bytes(cache).decode()
            seen.written_is_read_only = cache.readonly

        def free(self) -> None:
            for pointer in self.pointers.values():
                memory.free(pointer)

    return Calibrator()


def make_network(trt: Any, builder: Any, logger: Any, options: Options) -> tuple[Any, dict[str, Any]]:
    network = builder.create_network(0)
    if options.onnx is None:
        for name, shape in SHAPES.items():
            network.add_input(name, trt.float32, (-1, *shape[1:]))
        network.mark_output(network.add_identity(network.get_input(0)).get_output(0))
        return network, {}
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(options.onnx)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    facts = {
        "parsed": parsed,
        "errors": [[str(error.code()), error.desc(), error.node()] for error in errors],
        "inputs": [[tensor.name, str(tensor.dtype), list(tensor.shape)] for tensor in _inputs(network)],
        "outputs": [network.get_output(index).name for index in range(network.num_outputs)],
        "layers": [network.get_layer(index).name for index in range(network.num_layers)],
    }
    return network, facts


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def run(options: Options) -> dict[str, Any]:
    trt: Any = importlib.import_module("tensorrt")
    standin: Any = importlib.import_module("standin")
    memory = CudaMemory() if options.memory == "cuda" else PycudaMemory()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network, facts = make_network(trt, builder, logger, options)
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    for tensor in _inputs(network):
        opt = SHAPES[tensor.name]
        profile.set_shape(tensor.name, (1, *opt[1:]), opt, (2 * opt[0], *opt[1:]))
    config.add_optimization_profile(profile)
    config.set_calibration_profile(profile)
    seen = Recorder()
    calibrator = make_calibrator(trt, options, memory, seen)
    config.int8_calibrator = calibrator

    plan = builder.build_serialized_network(network, config) if facts.get("parsed", True) else None
    outcome = {
        "tensorrt": trt.__version__,
        "network": facts,
        "plan": None if plan is None else dataclasses.asdict(standin.read_plan(bytes(plan))),
        "timing_cache": None if plan is None else len(bytes(config.get_timing_cache().serialize())),
        "engine": None if plan is None else trt.Runtime(logger).deserialize_cuda_engine(bytes(plan)),
        "calls": seen.calls,
        "names": seen.names,
        "written": seen.written,
        "written_is_read_only": seen.written_is_read_only,
    }
    outcome["before_free"] = standin.counters()._asdict()
    calibrator.free()
    memory.close()
    outcome["after_free"] = standin.counters()._asdict()
    return outcome


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # TensorRT 10 deprecates calibrators
    print(json.dumps(run(Options(**json.loads(sys.argv[1])))))
