"""The Q/DQ models that `insert_qdq` returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import ModelError, TableError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.weights import quantize_weight
from trt_ptq.types import Array

RANGES = CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})


@pytest.fixture
def converted(cnn: Model, tmp_path: Path) -> onnx.ModelProto:
    path = tmp_path / "int8.onnx"
    save_model(insert_qdq(cnn, RANGES).model, path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def constants(proto: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_every_quantizer_is_symmetric_int8_with_a_positive_scale(converted: onnx.ModelProto) -> None:
    values = constants(converted)
    linear = [node for node in converted.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(linear) == 11  # four pairs for activations, three weights
    for node in linear:
        scale, zero_point = values[node.input[1]], values[node.input[2]]
        assert scale.dtype == np.float32
        assert (scale > 0).all()
        assert zero_point.dtype == np.int8
        assert not zero_point.any()


def test_activation_scales_are_amax_over_127(converted: onnx.ModelProto) -> None:
    scales = {
        node.input[0]: constants(converted)[node.input[1]]
        for node in converted.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert {name: float(scale) for name, scale in scales.items()} == {
        name: float(RANGES.scale(source)) for name, source in {"x": "x", "r1": "r1", "r2": "f", "f": "f"}.items()
    }


def test_weights_are_stored_as_int8_only(converted: onnx.ModelProto) -> None:
    values = constants(converted)
    assert {name for name, value in values.items() if value.dtype == np.int8 and value.ndim > 1} == {
        "w1.int8",
        "w2.int8",
        "w3.int8",
    }
    assert not {"w1", "w2", "w3"} & values.keys()
    assert values["b1"].dtype == np.float32


def test_nothing_stands_between_a_convolution_and_its_activation(converted: onnx.ModelProto) -> None:
    producers = {output: node for node in converted.graph.node for output in node.output}
    activations = [node for node in converted.graph.node if node.op_type == "Relu"]
    assert {producers[node.input[0]].op_type for node in activations} == {"Conv", "Add"}


def test_ranges_without_clipping_change_little(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    save_model(insert_qdq(cnn, CalibrationTable({"x": 1.0, "r1": 6.0, "f": 8.0})).model, path)
    feeds = {"x": images(8)}
    exact = ort.InferenceSession(cnn.path).run(None, feeds)[0]
    rounded = ort.InferenceSession(path).run(None, feeds)[0]
    noise = np.square(exact - rounded).sum() / np.square(exact).sum()
    assert 0 < noise < 0.01


def test_the_same_model_and_table_give_the_same_bytes(cnn_path: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in paths:
        save_model(insert_qdq(load_model(cnn_path), RANGES).model, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_node_without_a_range_is_excluded_with_the_reason(cnn: Model) -> None:
    result = insert_qdq(cnn, CalibrationTable({"x": 1.0, "f": 4.0}, tensors_without_range=("r1",)))
    assert {node.output: node.reason for node in result.nodes if not node.is_int8} == {
        "c2": "'r1' has no usable scale (always zero, or not finite)",
        "a": "its convolution 'c2' does not run in INT8",
    }


def test_a_residual_add_is_excluded_with_its_convolution(tmp_path: Path) -> None:
    """Its shortcut has a range, but there is no INT8 kernel to fuse it into."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "x"], ["y"]),
    ]
    weights = [weight(name, CHANNELS, CHANNELS, 1, 1) for name in ("w1", "w2")]
    path = write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"])
    graph = insert_qdq(load_model(path), CalibrationTable({"x": 1.0})).model.graph
    add = next(node for node in graph if node.op_type == "Add")
    assert [value.name for value in add.inputs if value is not None] == ["c2", "x"]


def test_a_model_with_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [], [image_input()], ["y"])
    with pytest.raises(ModelError, match="no node can run in INT8"):
        insert_qdq(load_model(path), CalibrationTable({"x": 1.0}))


def test_names_of_the_model_are_not_reused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["x.quantized"]),
        helper.make_node("Relu", ["x.quantized"], ["w.int8"]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "w.int8"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["y"])
    converted = tmp_path / "int8.onnx"
    save_model(insert_qdq(load_model(path), CalibrationTable({"x": 1.0, "w.int8": 1.0})).model, converted)
    onnx.checker.check_model(str(converted))
    feeds = {"x": images(4)}
    exact, rounded = (ort.InferenceSession(file).run(None, feeds)[0] for file in (path, converted))
    np.testing.assert_allclose(rounded, exact, atol=0.05)


def test_a_weight_along_two_axes_is_stored_for_each(tmp_path: Path) -> None:
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Gemm", ["m", "w"], ["y"], transB=1)]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", 32, 32)], [rows], ["y"])
    converted = tmp_path / "int8.onnx"
    save_model(insert_qdq(load_model(path), CalibrationTable({"x": 4.0, "m": 8.0})).model, converted)
    onnx.checker.check_model(str(converted))
    feeds = {"x": np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)}
    exact, rounded = (ort.InferenceSession(file).run(None, feeds)[0] for file in (path, converted))
    assert np.square(exact - rounded).sum() < 0.01 * np.square(exact).sum()


def test_a_table_of_foreign_names_is_refused(cnn: Model) -> None:
    with pytest.raises(TableError, match=r"no node can run in INT8.*Does the table belong to this model"):
        insert_qdq(cnn, CalibrationTable({"conv1/output": 1.0}))


def test_a_weight_that_two_nodes_share_is_stored_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Conv", ["c", "w"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["y"])
    model = insert_qdq(load_model(path), CalibrationTable({"x": 1.0, "c": 1.0})).model
    assert (
        sum(value.dtype is not None and "int8" in (value.name or "") for value in model.graph.initializers.values())
        == 3
    )
    assert "w" not in model.graph.initializers


def test_a_weight_that_a_float_node_needs_too_stays(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("ReduceSum", ["w"], ["total"])]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["c", "total"])
    assert "w" in insert_qdq(load_model(path), CalibrationTable({"x": 1.0})).model.graph.initializers


def test_the_model_saves_itself(cnn: Model, tmp_path: Path) -> None:
    result = insert_qdq(cnn, RANGES)
    result.save(str(tmp_path / "a.onnx"))
    save_model(result.model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_channel_of_zeros_gets_scale_one() -> None:
    values = np.zeros((2, 3), np.float32)
    values[1] = [0.5, -1, 0.25]
    result = quantize_weight(values, 0, "w")
    assert result.scales.tolist() == [1, np.float32(1 / 127)]
    assert result.values.tolist() == [[0, 0, 0], [64, -127, 32]]


def test_a_nan_in_a_weight_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="weight 'w' has NaN"):
        quantize_weight(np.array([[np.nan]], np.float32), 0, "w")


def test_with_every_node_excluded_the_model_is_the_float_model(cnn: Model, tmp_path: Path) -> None:
    every = [node.output for node in insert_qdq(cnn, RANGES).nodes]
    result = insert_qdq(cnn, RANGES, nodes_to_exclude=every)
    assert result.num_int8_nodes == 0
    save_model(result.model, tmp_path / "float.onnx")
    feeds = {"x": images(4)}
    exact, same = (ort.InferenceSession(file).run(None, feeds)[0] for file in (cnn.path, tmp_path / "float.onnx"))
    np.testing.assert_array_equal(exact, same)


def test_an_excluded_node_has_a_float_weight(cnn: Model) -> None:
    constants = insert_qdq(cnn, RANGES, nodes_to_exclude=["c1"]).model.graph.initializers
    assert "w1" in constants
    assert "w1.int8" not in constants
