"""The float16 baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.graph.half import to_float16
from trt_ptq.graph.model import Model, load_model
from trt_ptq.graph.save import save_model


def test_weights_are_halved_and_results_close(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    save_model(to_float16(cnn), path)
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert types == {TensorProto.FLOAT16}
    feeds = {"x": images(4)}
    full, half = (ort.InferenceSession(one).run(None, feeds)[0] for one in (cnn.path, path))
    np.testing.assert_allclose(half, full, atol=0.02)
    assert half.dtype == np.float32


def test_the_result_is_valid_onnx(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    save_model(to_float16(cnn), path)
    onnx.checker.check_model(str(path))


def test_a_constant_beyond_float16_keeps_its_node_in_float32(tmp_path: Path) -> None:
    """A BatchNormalization whose running variance is 1e7, as the PP-OCRv4 detector has."""
    large = {"mean": 0.0, "variance": 1e7, "gain": 3000.0, "bias": 0.0}
    weights = [numpy_helper.from_array(np.full(CHANNELS, value, np.float32), name) for name, value in large.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gain", "bias", "mean", "variance"], ["y"]),
    ]
    kernel = weight("w", CHANNELS, CHANNELS, 1, 1)
    path = write(tmp_path / "bn.onnx", nodes, [kernel, *weights], [image_input()], ["y"])
    half = tmp_path / "half.onnx"
    save_model(to_float16(load_model(path)), half)
    feeds = {"x": images(4)}
    expected, got = (ort.InferenceSession(one).run(None, feeds)[0] for one in (path, half))
    np.testing.assert_allclose(got, expected, atol=0.01)
