"""Converting float32 to float16: what is converted, what is not, and the results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fp16.float16_models import converted, no_cast_follows_another, ops, run, scalar, types, vector
from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.fp16.convert import convert_to_float16, to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq

RANGES = CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})


def test_weights_keep_their_names_and_results_are_close(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    save_model(to_float16(cnn), path)
    weights = onnx.load(path).graph.initializer
    assert {(tensor.name, tensor.data_type) for tensor in weights} == {
        (name, TensorProto.FLOAT16) for name in ("w1", "b1", "w2", "w3")
    }
    feeds = {"x": images(4)}
    full, half = run(cnn.path, feeds), run(path, feeds)
    np.testing.assert_allclose(half, full, atol=0.02)
    assert half.dtype == np.float32


def test_casts_are_only_at_the_input_and_the_output(cnn_path: Path) -> None:
    proto, result = converted(cnn_path)
    casts = [(node.input[0], node.output[0]) for node in proto.graph.node if node.op_type == "Cast"]
    assert casts == [("x", "x.float16"), ("y.float16", "y")]
    assert not result.fp32_nodes


def test_inputs_and_outputs_keep_names_and_types(cnn_path: Path) -> None:
    proto, _ = converted(cnn_path)
    before = onnx.load(cnn_path).graph
    for old, new in ((before.input[0], proto.graph.input[0]), (before.output[0], proto.graph.output[0])):
        assert (new.name, new.type.tensor_type.elem_type) == (old.name, TensorProto.FLOAT)


def test_a_node_without_a_name_is_known_by_its_output_also_where_that_is_renamed(cnn_path: Path) -> None:
    """TensorRT calls it "node_of_y" in the plan of the float model."""
    proto, _ = converted(cnn_path)
    (gemm,) = [node for node in proto.graph.node if node.op_type == "Gemm"]
    assert (gemm.output[0], gemm.name) == ("y.float16", "node_of_y")


def test_a_tensor_that_is_an_output_and_is_read_too_has_both_types(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Sigmoid", ["a"], ["b"])]
    proto, _ = converted(write(tmp_path / "m.onnx", nodes, [], [image_input()], ["a", "b"]))
    found = types(proto)
    assert (found["a.float16"], found["a"], found["b"]) == (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT)
    feeds = {"x": images(2)}
    np.testing.assert_allclose(run(proto, feeds), np.maximum(feeds["x"], 0), atol=0.001)


def test_positions_and_angles_stay_float32(tmp_path: Path) -> None:
    """Rotary embedding: position 4001 times a frequency, then its cosine."""
    nodes = [
        helper.make_node("Cast", ["position"], ["p"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["p", "frequency"], ["angle"]),
        helper.make_node("Cos", ["angle"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    inputs = [vector("x"), vector("position", TensorProto.INT64)]
    path = write(tmp_path / "m.onnx", nodes, [scalar("frequency", 0.7)], inputs, ["y"])
    proto, result = converted(path)
    assert [(node.output, node.cause) for node in result.fp32_nodes] == [("angle", "exactness"), ("c", "exactness")]
    feeds = {"x": np.ones(3, np.float32), "position": np.array([1, 999, 4001])}
    np.testing.assert_allclose(run(proto, feeds), np.cos(0.7 * feeds["position"]), atol=0.002)


def test_an_angle_stays_float32_back_to_its_convolution(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "k"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["y"]),
    ]
    constants = [weight("w", CHANNELS, CHANNELS, 1, 1), scalar("k", 30)]
    result = converted(write(tmp_path / "m.onnx", nodes, constants, [image_input()], ["y"]))[1]
    assert [(node.output, node.reason) for node in result.fp32_nodes] == [
        ("angle", "part of an angle"),
        ("y", "an angle"),
    ]


def test_sizes_are_computed_exactly_and_resize_keeps_float32_scales(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["sizes", "sizes"], ["one"]),
        helper.make_node("Mul", ["one", "factor"], ["scales"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Resize", ["r", "", "scales"], ["y"]),
    ]
    factor = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "factor")
    path = write(tmp_path / "m.onnx", nodes, [factor], [image_input()], ["y"])
    proto, result = converted(path)
    assert [node.output for node in result.fp32_nodes] == ["one", "scales"]
    assert types(proto)["scales"] == TensorProto.FLOAT
    assert ops(proto)["Cast"] == 3  # the model's own, in, out
    feeds = {"x": images(2)}
    np.testing.assert_allclose(run(proto, feeds), run(path, feeds), atol=0.001)


def test_a_cast_to_float32_is_replaced_by_one_to_float16(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["seen"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "mask"], ["y"]),
    ]
    inputs = [vector("x"), vector("seen", TensorProto.BOOL)]
    proto, _ = converted(write(tmp_path / "m.onnx", nodes, [], inputs, ["y"]))
    assert no_cast_follows_another(proto)
    assert ops(proto)["Cast"] == 3
    feeds = {"x": np.array([1, 2], np.float32), "seen": np.array([True, False])}
    assert run(proto, feeds).tolist() == [1, 0]


def test_an_operator_without_float16_stays_float32(tmp_path: Path) -> None:
    """Range has no float16 in its schema; what it makes is cast for its reader."""
    nodes = [helper.make_node("Range", ["start", "end", "step"], ["r"]), helper.make_node("Mul", ["x", "r"], ["y"])]
    constants = [scalar("start", 0), scalar("end", 4), scalar("step", 1)]
    proto, result = converted(write(tmp_path / "m.onnx", nodes, constants, [vector("x", length=4)], ["y"]))
    assert [(node.output, node.cause, node.reason) for node in result.fp32_nodes] == [
        ("r", "operator", "Range does not support float16")
    ]
    assert run(proto, {"x": np.ones(4, np.float32)}).tolist() == [0, 1, 2, 3]


def test_a_reader_of_any_type_needs_no_cast(tmp_path: Path) -> None:
    nodes = [helper.make_node("ArgMax", ["x"], ["i"]), helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]
    proto, _ = converted(write(tmp_path / "m.onnx", nodes, [], [image_input()], ["y"]))
    assert ops(proto)["Cast"] == 1


def test_an_operator_of_another_domain_stays_float32(tmp_path: Path) -> None:
    custom = helper.make_node("Secret", ["r"], ["s"], domain="com.example")
    nodes = [helper.make_node("Relu", ["x"], ["r"]), custom, helper.make_node("Identity", ["s"], ["y"])]
    graph = helper.make_graph(nodes, "g", [vector("x")], [vector("y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    result = convert_to_float16(load_model(path).to_ir())
    secret = next(node for node in result.model.graph if node.op_type == "Secret")
    source = secret.inputs[0].producer() if secret.inputs[0] else None
    assert source is not None and source.op_type == "Cast"
    assert [node.op_type for node in result.fp32_nodes] == ["Secret", "Identity"]


def test_the_body_of_a_loop_stays_float32(tmp_path: Path) -> None:
    """y = x relu'd, then doubled three times with the captured relu."""
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "r"], ["v2"]), helper.make_node("Identity", ["go"], ["go2"])],
        "body",
        [vector("i", TensorProto.INT64, 1), helper.make_tensor_value_info("go", TensorProto.BOOL, []), vector("v")],
        [helper.make_tensor_value_info("go2", TensorProto.BOOL, []), vector("v2")],
    )
    body.input[0].type.tensor_type.shape.Clear()
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Loop", ["three", "", "r"], ["l"], body=body),
        helper.make_node("Neg", ["l"], ["y"]),
    ]
    three = numpy_helper.from_array(np.array(3), "three")
    graph = helper.make_graph(nodes, "g", [vector("x")], [vector("y")], [three])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    proto, result = converted(path)
    assert [(node.output, node.reason) for node in result.fp32_nodes] == [("l", "its body stays float32")]
    assert run(proto, {"x": np.array([1, -2], np.float32)}).tolist() == [-4, 0]


def test_the_rest_of_an_int8_model_is_float16_down_to_the_scales(cnn: Model, tmp_path: Path) -> None:
    whole, path = insert_qdq(cnn, RANGES).model, tmp_path / "int8.onnx"
    full = tmp_path / "full.onnx"
    save_model(whole, full)
    result = convert_to_float16(insert_qdq(cnn, RANGES).model)
    save_model(result.model, path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == 19
    assert not result.fp32_nodes
    found = types(proto)
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "Add", "MaxPool", "DequantizeLinear"):
            assert found[node.output[0]] == TensorProto.FLOAT16, node.name
    assert ops(proto)["Cast"] == 1  # at the output: none around Q or DQ, and the input is quantized as it is
    feeds = {"x": images(8)}
    np.testing.assert_allclose(run(path, feeds), run(full, feeds), atol=0.05)


def test_a_weight_with_a_scale_too_fine_for_float16_is_rounded_again(tmp_path: Path) -> None:
    """No cast stands between a weight and its convolution, which would then not run in INT8."""
    kernel = numpy_helper.to_array(weight("w", CHANNELS, CHANNELS, 1, 1)).copy()
    kernel[3] *= 1e-4
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Mul", ["c", "gain"], ["y"])]
    gain = numpy_helper.from_array(np.where(np.arange(CHANNELS) == 3, 1e3, 1).astype("f").reshape(-1, 1, 1), "gain")
    path = write(tmp_path / "m.onnx", nodes, [numpy_helper.from_array(kernel, "w"), gain], [image_input()], ["y"])
    full, half = (insert_qdq(load_model(path), CalibrationTable({"x": 1.0})).model for _ in range(2))
    save_model(full, tmp_path / "full.onnx")
    save_model(convert_to_float16(half).model, tmp_path / "half.onnx")
    found = types(onnx.load(tmp_path / "half.onnx"))
    assert found["w.dequantized.float16"] == TensorProto.FLOAT16
    feeds = {"x": images(4)}
    wanted, got = (run(tmp_path / name, feeds)[:, 3] for name in ("full.onnx", "half.onnx"))
    assert np.abs(got - wanted).max() < 0.01 * np.abs(wanted).max()


def test_a_scale_too_fine_for_float16_stays_float32_behind_a_cast(cnn: Model, tmp_path: Path) -> None:
    tiny = CalibrationTable({"x": 1.0, "r1": 1e-4, "f": 4.0})
    path = tmp_path / "int8.onnx"
    save_model(convert_to_float16(insert_qdq(cnn, tiny).model).model, path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    found = types(proto)
    scales = {node.output[0]: found[node.output[0]] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    assert scales["r1.dequantized"] == TensorProto.FLOAT
    assert no_cast_follows_another(proto)


def test_an_int8_node_that_stays_float32_gets_float32_from_its_dequantizers(cnn: Model, tmp_path: Path) -> None:
    amax = dict.fromkeys(("x", "c1", "r1", "r2", "p", "f", "y"), 1.0) | {"c2": 1e5, "a": 1e5}
    result = convert_to_float16(insert_qdq(cnn, RANGES).model, amax)
    assert {node.output for node in result.fp32_nodes} == {"c2", "a", "r2"}
    conv = next(node for node in result.model.graph if node.outputs[0].name == "c2")
    makers = [value.producer() for value in conv.inputs if value is not None]
    assert [maker.op_type for maker in makers if maker is not None] == ["DequantizeLinear", "DequantizeLinear"]


def test_weights_are_read_only_when_the_model_is_saved(cnn: Model) -> None:
    weights = to_float16(cnn).graph.initializers
    assert {type(value.const_value).__name__ for value in weights.values()} == {"LazyTensor"}
