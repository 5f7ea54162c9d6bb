"""Measuring on a device by torch gives what the CPU gives; here torch's own CPU stands for the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.calibration.test_collector import Given
from tests.networks import images, write
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.devices import CUDA, HostDevice, TorchDevice, open_device
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.errors import MissingPackageError, ModelError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import CPU, create_session

torch = pytest.importorskip("torch")


def test_torch_buffers_and_kernel_measure_what_numpy_and_numba_do(cnn: Model) -> None:
    source = Given([images(4), images(4, seed=1), images(2, seed=2)])
    calibration_tensors = select_calibration_tensors(cnn, ["all"])
    assert collect_statistics(cnn, source, calibration_tensors, device=TorchDevice("cpu")) == collect_statistics(
        cnn, source, calibration_tensors, device=HostDevice()
    )


def test_tensors_of_unknown_shape_are_measured_on_a_device_too(tmp_path: Path) -> None:
    model = load_model(values_decide_the_shape(tmp_path / "model.onnx"))
    source = Given([images(2), images(2, seed=1), images(3, seed=2)])
    calibration_tensors = select_calibration_tensors(model, ["all"])
    assert collect_statistics(model, source, calibration_tensors, device=TorchDevice("cpu")) == collect_statistics(
        model, source, calibration_tensors
    )


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="`device` is cpu or cuda, not 'tpu'"):
        open_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises((UsageError, MissingPackageError), match="`device=cuda`"):
        open_device("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_provider_that_does_not_start_never_falls_back_to_the_cpu(cnn: Model) -> None:
    with pytest.raises(ModelError, match=rf"ONNX Runtime cannot start {CUDA}"):
        create_session(cnn.proto, cnn.path.parent, "cnn", providers=[(CUDA, {}), CPU])


def values_decide_the_shape(path: Path) -> Path:
    """Relu, then only the values above 1: their number is known once the model has run."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Greater", ["r", "one"], ["above"]),
        helper.make_node("Compress", ["r", "flat"], ["kept"]),
        helper.make_node("Reshape", ["above", "all"], ["flat"]),
    ]
    nodes = [nodes[0], nodes[1], nodes[3], nodes[2]]
    constants = [
        onnx.numpy_helper.from_array(np.array(0.5, np.float32), "one"),
        onnx.numpy_helper.from_array(np.array([-1]), "all"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 8, 8])]
    return write(path, nodes, constants, inputs, ["kept"])
