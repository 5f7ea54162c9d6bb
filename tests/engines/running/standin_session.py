"""Runs on the stand-in libcuda, in a subprocess: engine sessions with an engine written in Python.

The stand-in's device memory is host memory, so this engine can double its input with numpy. It implements the methods
that EngineSession calls; that TensorRT's engines behave the same is tested on a GPU. The last line of stdout is JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from trt_ptq.engines.library import TensorRTLibrary
from trt_ptq.engines.running import runtime as sessions
from trt_ptq.engines.running.benchmark import benchmark
from trt_ptq.errors import TrtPtqError

LARGEST = 8


def capsule(address: int) -> Any:
    create = ctypes.pythonapi.PyCapsule_New
    create.argtypes, create.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.py_object
    return create(address, None, None)


class DebugListener:
    """The base class that TensorRT's bindings provide."""


class Profiler:
    """The base class that TensorRT's bindings provide."""


class DoublingContext:
    """Reports y as a debug tensor, in a capsule, as TensorRT's bindings do; and one kernel, to a profiler."""

    def __init__(self, number: Any = ctypes.c_float) -> None:
        self.number = number
        self.listener: Any = None
        self.profiler: Any = None
        self.runs = 0
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        return len(shape) == 2 and 1 <= shape[0] <= LARGEST and shape[1] == 3

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        ctypes.CDLL("libcuda.so.1").cuStreamSynchronize(ctypes.c_void_p(stream))  # the copies have to be complete
        count = int(np.prod(self.shape))
        x, y = (np.ctypeslib.as_array((self.number * count).from_address(self.addresses[name])) for name in ("x", "y"))
        y[:] = 2 * x
        if self.profiler is not None:
            self.runs += 1
            self.profiler.report_layer_time("double", 1.0 if self.runs > 2 else 100.0)
        if self.listener is None:
            return True
        address = capsule(self.addresses["y"])
        return bool(self.listener.process_debug_tensor(address, 0, "float32", self.shape, "y", stream))

    def set_debug_listener(self, listener: Any) -> bool:
        self.listener = listener
        return True

    def set_all_tensors_debug_state(self, flag: bool) -> bool:
        return flag


class Inspector:
    """Lists one kernel, with sizes that are known if it has an execution context."""

    execution_context: Any = None

    def get_engine_information(self, _form: str) -> str:
        shape = self.execution_context.shape if self.execution_context is not None else (-1, 3)
        x, y = ({"Name": name, "Dimensions": shape, "Format/Datatype": "Float"} for name in "xy")
        kernel = {"Name": "double", "LayerType": "PointWiseV2", "Inputs": [x], "Outputs": [y]}
        return json.dumps({"Layers": [kernel], "Bindings": ["x", "y"]})


class DoublingEngine:
    """x [1 to 8, 3] -> y, optimized for 4."""

    num_io_tensors, device_memory_size_v2 = 2, 1234

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == "x" else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, int]]:
        return [(1, 3), (4, 3), (LARGEST, 3)]

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def create_engine_inspector(self) -> Inspector:
        return Inspector()

    def create_execution_context(self) -> DoublingContext:
        return DoublingContext()


class Int8Engine(DoublingEngine):
    """The same with int8 inputs and outputs."""

    def get_tensor_dtype(self, name: str) -> str:
        return "int8"

    def create_execution_context(self) -> DoublingContext:
        return DoublingContext(ctypes.c_int8)


def load_int8(path: Path) -> Any:
    manifest = SimpleNamespace(precision="int8", int8_io={"x": 0.5, "y": 0.25})
    return SimpleNamespace(**{**vars(load(path)), "engine": Int8Engine(), "manifest": manifest})


def load(path: Path) -> Any:
    trt = SimpleNamespace(
        __version__="stand-in",
        TensorIOMode=SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
        TensorLocation=SimpleNamespace(DEVICE=0, HOST=1),
        nptype=np.dtype,
        IDebugListener=DebugListener,
        IProfiler=Profiler,
        LayerInformationFormat=SimpleNamespace(JSON="JSON"),
    )
    library = TensorRTLibrary("tensorrt", "stand-in", trt)
    return SimpleNamespace(engine=DoublingEngine(), gpu="stand-in", manifest=None, library=library, builder_log=None)


def refusal(action: Callable[[], object]) -> str:
    try:
        action()
    except TrtPtqError as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def run(path: Path) -> dict[str, Any]:
    standin: Any = importlib.import_module("standin")
    vars(sessions)["load_engine"] = load
    answers = []
    unplanned = sessions.EngineSession(path).inspect().shapes["x"]
    with sessions.EngineSession(path) as session:
        for samples in (2, 8, 1):
            x = np.random.default_rng(samples).standard_normal((samples, 3)).astype(np.float32)
            answers.append(bool(np.array_equal(session.run({"x": x})["y"], 2 * x)))
        x = np.ones((3, 3), np.float32)
        debugged = {name: bool(np.array_equal(value, 2 * x)) for name, value in session.debug({"x": x}).items()}
        profiles = {name: str(profile) for name, profile in session.profiles().items()}
        timed = benchmark(session, session.example_feeds({}), runs=5, warm_up=2)
        planned = session.inspect().shapes["x"]
        kernels = session.kernel_times({"x": x}, runs=3, warm_up=2)
        ones = np.ones((2, 3), np.float32)
        refused = {
            "name": refusal(lambda: session.run({"images": ones})),
            "type": refusal(lambda: session.run({"x": ones.astype(np.float16)})),
            "shape": refusal(lambda: session.run({"x": np.ones((9, 3), np.float32)})),
        }
        while_open = standin.counters()._asdict()
    vars(sessions)["load_engine"] = load_int8
    with sessions.EngineSession(path) as session:
        int8 = session.run({"x": np.array([[1, -2, 10.2]], np.float32)})["y"].tolist()
        benchmark(session, session.example_feeds({}), runs=1, warm_up=1)
    return {
        "int8": int8,
        "answers": answers,
        "debugged": debugged,
        "profiles": profiles,
        "kernels": kernels,
        "planned": [planned, unplanned],
        "refused": refused,
        "timed": [timed.latency.runs, timed.latency.batch, timed.shapes["x"], timed.device_memory_bytes],
        "engine_after_close": session.engine is not None,
        "while_open": while_open,
        "closed": standin.counters()._asdict(),
    }


def out_of_memory(path: Path) -> dict[str, Any]:
    """For a device with room for the input alone."""
    standin: Any = importlib.import_module("standin")
    vars(sessions)["load_engine"] = load
    with sessions.EngineSession(path) as session:
        error = refusal(lambda: session.run({"x": np.ones((8, 3), np.float32)}))
    return {"error": error, "closed": standin.counters()._asdict()}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    print(json.dumps(run(path) if path.exists() else out_of_memory(path)))
