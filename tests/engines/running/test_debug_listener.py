"""The listener to debug tensors, called as by the genuine bindings of TensorRT-RTX, with tensors in host memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from trt_ptq.engines.running.debug_listener import DebugTensors
from trt_ptq.errors import EngineError

trt: Any = pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')


def capsule(array: np.ndarray[Any, Any]) -> Any:
    create = ctypes.pythonapi.PyCapsule_New
    create.argtypes, create.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.py_object
    return create(array.ctypes.data, None, None)


@pytest.fixture
def received() -> DebugTensors:
    device: Any = None  # copies from the device only
    return DebugTensors(trt, device)


def process(received: DebugTensors, array: np.ndarray[Any, Any], dtype: Any, name: str) -> bool:
    shape = trt.Dims(array.shape)
    return bool(received.listener.process_debug_tensor(capsule(array), trt.TensorLocation.HOST, dtype, shape, name, 0))


@pytest.mark.parametrize(("dtype", "numpy_type"), [("float32", np.float32), ("float16", np.float16), ("int8", np.int8)])
def test_values_are_copied_with_their_type_and_shape(received: DebugTensors, dtype: str, numpy_type: Any) -> None:
    assert isinstance(received.listener, trt.IDebugListener)
    array = np.arange(6).reshape(2, 3).astype(numpy_type)
    expected = array.copy()
    assert process(received, array, getattr(trt, dtype), "x")
    array[:] = 0  # TensorRT's memory is valid only during the call
    values = received.take()
    assert values["x"].dtype == numpy_type
    assert np.array_equal(values["x"], expected)
    assert received.take() == {}


def test_an_error_in_the_callback_is_raised_after_the_run(received: DebugTensors) -> None:
    assert not process(received, np.zeros(2, np.uint16), trt.bfloat16, "x")
    with pytest.raises(EngineError, match=r"debug tensor 'x' is .*(?i:bf16|bfloat16)"):
        received.take()
    assert received.take() == {}
