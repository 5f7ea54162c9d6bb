"""All kinds of device buffers copy batches to a real GPU and free their memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from trt_ptq._internal.hardware.cuda import Device
from trt_ptq.calibrators.tensorrt.device_memory.buffers import DeviceBuffers, DoubleBuffer
from trt_ptq.calibrators.tensorrt.device_memory.cuda_bindings_buffers import CudaBindingsBuffers
from trt_ptq.calibrators.tensorrt.device_memory.pycuda_buffers import PycudaBuffers
from trt_ptq.calibrators.tensorrt.device_memory.torch_buffers import TorchBuffers
from trt_ptq.errors import EngineError, MissingPackageError

pytestmark = pytest.mark.gpu
SIZE = 8 << 20


@pytest.fixture(params=[Device, PycudaBuffers, CudaBindingsBuffers, TorchBuffers])
def buffers(request: pytest.FixtureRequest) -> Iterator[DeviceBuffers]:
    kind: Callable[[], DeviceBuffers] = request.param
    try:
        opened = kind()
    except (MissingPackageError, EngineError) as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


def read_back(buffers: DeviceBuffers, pointer: int, size_bytes: int) -> bytes:
    """The bytes at `pointer`, read with the driver in the primary context, which all kinds use here."""
    driver = ctypes.CDLL("libcuda.so.1")
    context = ctypes.c_void_p()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    host = ctypes.create_string_buffer(size_bytes)
    try:
        assert driver.cuCtxPushCurrent_v2(context) == 0
        assert driver.cuMemcpyDtoH_v2(host, ctypes.c_uint64(pointer), ctypes.c_size_t(size_bytes)) == 0
        assert driver.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(0)
    return host.raw


def test_copy_is_there_after_synchronize(buffers: DeviceBuffers) -> None:
    content = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    pointer, pinned = buffers.allocate(SIZE), buffers.allocate_pinned(SIZE)
    pinned[:] = content
    buffers.upload(pinned, pointer)
    buffers.synchronize()
    assert read_back(buffers, pointer, SIZE) == content.tobytes()


def test_two_slots_hold_the_last_two_batches(buffers: DeviceBuffers) -> None:
    double_buffer = DoubleBuffer(buffers, {"x": 4 * 1000})
    batches = [np.full(1000, value, np.float32) for value in range(3)]
    pointers = []
    for batch in batches:
        pointers.append(double_buffer.upload({"x": batch})["x"])
        buffers.synchronize()
    assert pointers[0] == pointers[2] != pointers[1]
    for batch, pointer in zip(batches[1:], pointers[1:], strict=True):
        assert read_back(buffers, pointer, batch.nbytes) == batch.tobytes()


def test_more_than_the_device_has_is_refused_with_the_sizes(buffers: DeviceBuffers) -> None:
    free, total = buffers.memory()
    assert 0 < free <= total
    with pytest.raises(EngineError, match=f"out of memory .* needs 2 x \\(x {total:,} bytes\\)"):
        DoubleBuffer(buffers, {"x": total})


def test_closing_gives_the_memory_back(buffers: DeviceBuffers) -> None:
    before, total = buffers.memory()
    large = min(before, total) // 2
    buffers.allocate(large)
    buffers.close()
    buffers.close()
    again = type(buffers)()
    free, _ = again.memory()
    again.close()
    assert free >= large


def test_context_of_torch_is_used_and_left_alone() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device here")
    tensor = torch.arange(1000, dtype=torch.float32, device="cuda")
    with Device() as device:
        copy = np.empty(1000, np.float32)
        device.download(copy, tensor.data_ptr())
        device.synchronize()
    assert np.array_equal(copy, np.arange(1000, dtype=np.float32))
    assert float(tensor.sum()) == 499500  # the context is still alive


def test_download_returns_what_was_uploaded_and_the_stopwatch_runs() -> None:
    try:
        device = Device()
    except EngineError as error:
        pytest.skip(str(error))
    content, back = np.random.default_rng(0).standard_normal(SIZE // 8), np.empty(SIZE // 8)
    with device:
        pointer = device.allocate(content.nbytes)
        stopwatch = device.stopwatch()
        stopwatch.start()
        device.upload(content, pointer)
        device.download(back, pointer)
        assert stopwatch.stop() > 0
        stopwatch.close()
        device.synchronize()
    assert np.array_equal(content, back)
