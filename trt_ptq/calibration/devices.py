"""The devices that calibration runs on: execution providers, output buffers and accumulators."""

from __future__ import annotations

import ctypes
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, helper

from trt_ptq._internal.packages.onnxruntime_check import check_onnxruntime
from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.analysis.dynamic_sizes import Shape
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator, TensorStatistics
from trt_ptq.calibrators.statistics.torch_accumulator import TorchAccumulator
from trt_ptq.errors import MissingPackageError, UsageError
from trt_ptq.onnx_io.ort_session import CPU
from trt_ptq.types import Array

CUDA = "CUDAExecutionProvider"


class Accumulator(Protocol):
    """Accumulates the statistics of a tensor from arrays of a device; see `TensorAccumulator`."""

    def update(self, values: Any) -> int: ...

    def statistics(self) -> TensorStatistics: ...


class Device(Protocol):
    """Buffers for the outputs of one session, and their accumulators. Arrays are tensors of the device's own type."""

    @property
    def name(self) -> str:
        """Name of the device in ONNX Runtime."""
        ...

    @property
    def providers(self) -> list[Any]:
        """Execution providers of ONNX Runtime, the preferred one first."""
        ...

    def accumulator(self) -> Accumulator:
        """Create an empty accumulator."""
        ...

    def allocate(self, name: str, element_type: int, shape: Shape) -> Any:
        """Return an uninitialized array of `shape` and ONNX `element_type`, valid until `name` is allocated again."""
        ...

    def data_pointer(self, array: Any) -> int:
        """Return the address of the first byte."""
        ...

    def copy_from(self, array: Any, pointer: int) -> None:
        """Fill `array` from memory of the device at address `pointer`."""
        ...

    def upload(self, array: Array) -> Any:
        """Return a NumPy array as an array of the device."""
        ...

    def release(self) -> None:
        """Free all buffers."""
        ...

    def synchronize(self) -> None:
        """Wait until all reads of the buffers have finished."""
        ...


class HostDevice:
    """The CPU: NumPy arrays, counted by numba. Each name has one buffer, which grows as needed."""

    name = "cpu"

    def __init__(self) -> None:
        self.providers: list[Any] = [CPU]
        self._bytes: dict[str, npt.NDArray[np.uint8]] = {}

    def accumulator(self) -> Accumulator:
        return TensorAccumulator()

    def allocate(self, name: str, element_type: int, shape: Shape) -> Array:
        dtype = helper.tensor_dtype_to_np_dtype(element_type)
        needed = math.prod(shape) * dtype.itemsize
        if name not in self._bytes or self._bytes[name].size < needed:
            self._bytes[name] = np.empty(needed, np.uint8)
        return self._bytes[name][:needed].view(dtype).reshape(shape)

    def data_pointer(self, array: Array) -> int:
        return array.ctypes.data

    def copy_from(self, array: Array, pointer: int) -> None:
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def upload(self, array: Array) -> Array:
        return array

    def release(self) -> None:
        self._bytes.clear()

    def synchronize(self) -> None:
        """Nothing to do: `TensorAccumulator.update` is synchronous."""


class TorchDevice:
    """A device of torch, by default the first NVIDIA GPU. Activations stay and are counted on it.

    Raises:
        UsageError: torch finds no GPU.
        MissingPackageError: torch, or ONNX Runtime with CUDA, is not installed.
    """

    def __init__(self, name: str = "cuda") -> None:
        self.name = name
        self._torch = require("torch", extra="torch")
        self.providers: list[Any] = [CPU]
        if name == "cuda":
            if not self._torch.cuda.is_available():
                raise UsageError("`device=cuda`: torch finds no NVIDIA GPU (torch.cuda.is_available() is false)")
            if CUDA not in ort.get_available_providers():
                raise MissingPackageError(
                    "`device=cuda`: this ONNX Runtime was built without CUDA: pip uninstall onnxruntime, then "
                    "pip install onnxruntime-gpu"
                )
            self.providers = [(CUDA, {"use_tf32": "0"}), CPU]  # TF32 would round to 10 bits
        self._types = {
            TensorProto.FLOAT: self._torch.float32,
            TensorProto.FLOAT16: self._torch.float16,
            TensorProto.BFLOAT16: self._torch.bfloat16,
        }
        self._bytes: dict[str, Any] = {}

    def accumulator(self) -> Accumulator:
        return TorchAccumulator()

    def allocate(self, name: str, element_type: int, shape: Shape) -> Any:
        dtype = self._types[TensorProto.DataType.ValueType(element_type)]
        needed = math.prod(shape) * dtype.itemsize
        if name not in self._bytes or self._bytes[name].numel() < needed:
            self._bytes[name] = self._torch.empty(max(needed, 1), dtype=self._torch.uint8, device=self.name)
        return self._bytes[name][:needed].view(dtype).reshape(shape)

    def data_pointer(self, array: Any) -> int:
        return int(array.untyped_storage().data_ptr())  # also of an empty array, whose own pointer is null

    def copy_from(self, array: Any, pointer: int) -> None:
        size = array.numel() * array.element_size()
        if not size:
            return
        if self.name == "cuda":
            source = self._torch.as_tensor(_CudaBytes(pointer, size), device=self.name)
        else:
            source = self._torch.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype=self._torch.uint8)
        array.reshape(-1).view(self._torch.uint8).copy_(source)
        self.synchronize()

    def upload(self, array: Array) -> Any:
        return self._torch.from_numpy(array).to(self.name)

    def release(self) -> None:
        self._bytes.clear()

    def synchronize(self) -> None:
        if self.name == "cuda":
            self._torch.cuda.synchronize()


class _CudaBytes:
    """Bytes at an address of GPU memory (CUDA array interface, version 3)."""

    def __init__(self, pointer: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (pointer, True),
            "version": 3,
        }


def open_device(name: str) -> Device:
    """Return the device named "cpu" or "cuda".

    Raises:
        UsageError: Unknown name, there is no GPU, or two packages of ONNX Runtime overwrite each other.
        MissingPackageError: torch, or ONNX Runtime with CUDA, is not installed.
    """
    if name == "cpu":
        return HostDevice()
    if name == "cuda":
        check_onnxruntime()
        return TorchDevice()
    raise UsageError(f"`device` is cpu or cuda, not {name!r}")
