"""Measuring on the GPU: the model by ONNX Runtime's CUDA provider, the counting by torch."""

from __future__ import annotations

import pytest

from tests.gpu.conftest import Pictures
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.devices import TorchDevice
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.onnx_io.load import Model

pytestmark = pytest.mark.gpu


@pytest.fixture
def cuda() -> TorchDevice:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA: pip install onnxruntime-gpu in place of onnxruntime")
    return TorchDevice("cuda")


def test_the_gpu_measures_the_same_as_the_cpu_except_for_rounding(
    cnn: Model, cuda: TorchDevice, pictures: Pictures
) -> None:
    calibration_tensors = select_calibration_tensors(cnn, ("all",))
    on_gpu, on_cpu = (
        collect_statistics(cnn, pictures, calibration_tensors, device=cuda),
        collect_statistics(cnn, pictures, calibration_tensors),
    )
    assert on_gpu.data == on_cpu.data
    for name, tensor in on_cpu.tensors.items():
        assert on_gpu.tensors[name].count == tensor.count, name
        assert on_gpu.tensors[name].amax == pytest.approx(tensor.amax, rel=1e-4), name
    assert on_gpu.tensors["x"] == on_cpu.tensors["x"]  # the input is the same to the bit, so its statistics are


def test_the_gpu_measures_the_same_twice(cnn: Model, cuda: TorchDevice, pictures: Pictures) -> None:
    calibration_tensors = select_calibration_tensors(cnn, ("all",))
    assert collect_statistics(cnn, pictures, calibration_tensors, device=cuda) == collect_statistics(
        cnn, pictures, calibration_tensors, device=TorchDevice("cuda")
    )
