"""Device memory for calibration batches, behind one small protocol."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from trt_ptq.errors import EngineError, MissingPackageError

Bytes = npt.NDArray[np.uint8]


class DeviceBuffers(Protocol):
    """Memory of one CUDA device, page-locked host memory, and one stream for the copies between them.

    Every method may be called from any thread, one at a time. What is allocated lives until `close`.
    """

    def allocate(self, size_bytes: int) -> int:
        """Pointer to new device memory. Raises MemoryError when there is not enough."""

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        """New page-locked host memory, which a copy reads while Python goes on."""

    def copy(self, source: Bytes, pointer: int) -> None:
        """Start copying pinned `source` to device memory; it must not change before `synchronize`."""

    def synchronize(self) -> None:
        """Wait until all copies are done."""

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of device memory."""

    def close(self) -> None:
        """Free everything. Safe to call twice."""


def open_buffers() -> DeviceBuffers:
    """Buffers by pycuda where it is installed, else by cuda-bindings, else by torch, on the current device.

    Raises:
        MissingPackageError: none of them is usable here; with the reason for each.
        EngineError: there is no CUDA device.
    """
    from trt_ptq.calibrators.tensorrt.cuda_bindings_buffers import CudaBindingsBuffers
    from trt_ptq.calibrators.tensorrt.pycuda_buffers import PycudaBuffers
    from trt_ptq.calibrators.tensorrt.torch_buffers import TorchBuffers

    reasons = []
    for kind in (PycudaBuffers, CudaBindingsBuffers, TorchBuffers):
        try:
            return kind()
        except MissingPackageError as error:
            reasons.append(str(error))
    raise MissingPackageError(f"calibration needs one of pycuda, cuda-bindings or torch: {'; '.join(reasons)}")


def full_device(reason: object) -> EngineError:
    """The error for a device on which there is no memory even to start."""
    return EngineError(f"no memory on the CUDA device even to start ({reason}): free the GPU (see nvidia-smi)")


def no_device(reason: object) -> EngineError:
    """The error for a machine on which CUDA does not start."""
    return EngineError(
        f"no CUDA device to calibrate on ({reason}): TensorRT calibrates on an NVIDIA GPU (see nvidia-smi); "
        "without one, use trt-ptq calibrate, which needs none"
    )
