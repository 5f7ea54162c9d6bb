"""Convolutions observed in the blocked layout that they are computed in: the same values in another order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from tests.networks import image_input, weight, write
from tests.observed_arrays import observed_arrays
from trt_ptq.calibration.devices import HostDevice
from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.calibration.observed.observed_sessions import create_observed_sessions
from trt_ptq.calibration.tensors import model_with_outputs, select_calibration_tensors
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import CPU
from trt_ptq.types import Batch


def convolutions(path: Path, channels: int) -> Path:
    """Two convolutions with Relu: x [n, 16, 8, 8] -> c1, r1 [n, channels, 8, 8] -> y [n, 16, 8, 8]."""
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["y"], **pads),
    ]
    weights = [weight("w1", channels, 16, 3, 3), weight("w2", 16, channels, 3, 3)]
    return write(path, nodes, weights, [image_input()], ["y"])


@pytest.mark.parametrize("channels", [16, 20, 32])
def test_an_observed_convolution_has_the_values_of_a_plain_session(tmp_path: Path, channels: int) -> None:
    model = load_model(convolutions(tmp_path / "model.onnx", channels))
    tensors = [name for name in select_calibration_tensors(model, ["all"]).tensors if name != "x"]
    x = np.random.default_rng(0).standard_normal((3, 16, 8, 8), np.float32)
    plain = ort.InferenceSession(ir.to_proto(model_with_outputs(model, tensors)).SerializeToString(), providers=[CPU])
    observed = ObservedModel(model, tensors, HostDevice())
    for _ in range(2):  # the second time into buffers that hold the first
        measured = observed_arrays(observed, Batch({"x": x}, "batch"))
        for name, array in zip(tensors, plain.run(None, {"x": x}), strict=True):
            assert np.array_equal(np.sort(measured[name], axis=None), np.sort(array, axis=None)), name


def test_only_channels_that_fill_their_blocks_stay_blocked(tmp_path: Path) -> None:
    if not _has_blocked_kernels(load_model(convolutions(tmp_path / "probe.onnx", 16))):
        pytest.skip("ONNX Runtime has no blocked convolutions for this processor")
    padded = load_model(convolutions(tmp_path / "model.onnx", 20))
    proto = ir.to_proto(model_with_outputs(padded, ["r1", "y"]))
    outputs = create_observed_sessions(proto, tmp_path, "model", [CPU]).output_of
    assert outputs["r1"] == "r1"
    assert outputs["y"] != "y"


def _has_blocked_kernels(model: Model) -> bool:
    proto = ir.to_proto(model_with_outputs(model, ["y"]))
    return create_observed_sessions(proto, model.path.parent, "probe", [CPU]).output_of["y"] != "y"
