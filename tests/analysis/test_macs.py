"""Multiply-accumulates, the shapes they are counted from, and the fraction that runs in INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.analysis.macs import count_macs
from trt_ptq.analysis.shapes import infer_shapes
from trt_ptq.calibration.tensors import model_with_outputs
from trt_ptq.errors import ModelError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.plan import int8_fraction, plan_quantization


def test_shapes_are_those_of_onnx_runtime(cnn: Model) -> None:
    tensors = ["c1", "r1", "c2", "a", "r2", "p", "f", "y"]
    session = ort.InferenceSession(ir.to_proto(model_with_outputs(cnn, tensors)).SerializeToString())
    run = dict(zip(tensors, session.run(None, {"x": images(3)}), strict=True))
    shapes = infer_shapes(cnn, {"x": (3, CHANNELS, 8, 8)})
    assert {name: shapes[name] for name in tensors} == {name: array.shape for name, array in run.items()}


def test_shape_computations_are_evaluated(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    rest = helper.make_tensor("rest", TensorProto.INT64, [2], [-1, 32])
    model = load_model(write(tmp_path / "m.onnx", nodes, [rest, weight("w", 32, 64)], [image_input()], ["y"]))
    assert infer_shapes(model, {"x": (2, CHANNELS, 8, 8)})["y"] == (2, 32, 64)


def test_a_dynamic_batch_size_is_1(cnn: Model) -> None:
    assert infer_shapes(cnn, {})["y"] == (1, 32)


def test_other_dynamic_dimensions_need_a_shape(tmp_path: Path) -> None:
    wide = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, 8, "width"])
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [], [wide], ["y"])
    with pytest.raises(
        UsageError, match=r"input x: float32 \[n, 16, 8, width\] has dynamic dimensions: pass its shape"
    ):
        infer_shapes(load_model(path), {})


def test_a_shape_that_does_not_match_is_refused(cnn: Model) -> None:
    with pytest.raises(UsageError, match="shape 1x3x8x8 does not match"):
        infer_shapes(cnn, {"x": (1, 3, 8, 8)})


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "macs"),
    [
        ("Conv", {"pads": [1, 1, 1, 1]}, (32, CHANNELS, 3, 3), 8 * 8 * 32 * 16 * 9),
        ("Conv", {"strides": [2, 2]}, (32, CHANNELS, 2, 2), 4 * 4 * 32 * 16 * 4),
        ("Conv", {"group": CHANNELS, "pads": [1, 1, 1, 1]}, (CHANNELS, 1, 3, 3), 8 * 8 * 16 * 9),
        ("ConvTranspose", {"strides": [2, 2]}, (CHANNELS, 32, 2, 2), 8 * 8 * 16 * 32 * 4),
        ("MatMul", {}, (8, 32), 16 * 8 * 32 * 8),
    ],
    ids=["conv", "strided", "depthwise", "transposed", "matmul"],
)
def test_multiply_accumulates_of_one_sample(
    tmp_path: Path, op: str, attributes: dict[str, Any], shape: tuple[int, ...], macs: int
) -> None:
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    model = load_model(write(tmp_path / "m.onnx", [node], [weight("w", *shape)], [image_input()], ["y"]))
    assert count_macs(model, {}) == {"y": macs}


def test_multiply_accumulates_of_a_transposed_gemm(tmp_path: Path) -> None:
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 10])
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)
    model = load_model(write(tmp_path / "m.onnx", [node], [weight("w", 64, 32)], [rows], ["y"]))
    assert count_macs(model, {}) == {"y": 10 * 64 * 32}


def test_shapes_that_depend_on_values_cannot_be_counted(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["rows"], ["columns"]),
        helper.make_node("MatMul", ["columns", "w"], ["y"]),
    ]
    model = load_model(write(tmp_path / "m.onnx", nodes, [weight("w", 4, 32)], [image_input()], ["y"]))
    with pytest.raises(ModelError, match="MatMul 'y' cannot be counted: the shape of"):
        count_macs(model, {})


def test_the_int8_fraction_is_of_the_macs(cnn: Model) -> None:
    graph = cnn.to_ir().graph
    macs = count_macs(cnn, {})
    assert int8_fraction(plan_quantization(graph), macs) == 1
    kept = plan_quantization(graph, nodes_to_exclude=["c1"])
    assert int8_fraction(kept, macs) == 1 - macs["c1"] / sum(macs.values())


def test_shapes_of_a_model_with_external_weights(cnn: Model, tmp_path: Path) -> None:
    """The values of small weights are read from the file beside the model."""
    path = tmp_path / "outside" / "m.onnx"
    path.parent.mkdir()
    save_model(cnn.to_ir(), path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0, location="m.data")
    assert infer_shapes(load_model(path), {})["y"] == (1, 32)


def test_operators_in_a_body_cannot_be_counted(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Conv", ["x", "w"], [name])], name, [], [out])

    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch("one"), else_branch=branch("other"))
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    weights = [weight("w", CHANNELS, CHANNELS, 1, 1), yes]
    model = load_model(write(tmp_path / "m.onnx", [node], weights, [image_input()], ["y"]))
    with pytest.raises(ModelError, match=r"Conv '(one|other)' is inside If"):
        count_macs(model, {})


def rows(*shape: int, name: str = "x") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.mark.parametrize(("op", "gates", "directions"), [("LSTM", 4, 1), ("GRU", 3, 1), ("RNN", 1, 1), ("LSTM", 4, 2)])
def test_recurrent_networks_count(tmp_path: Path, op: str, gates: int, directions: int) -> None:
    """x [positions 7, batch 2, 12], 20 hidden values; only the last state is an output."""
    direction = "bidirectional" if directions == 2 else "forward"
    node = helper.make_node(op, ["x", "w", "r"], ["", "y"], hidden_size=20, direction=direction)
    weights = [weight("w", directions, gates * 20, 12), weight("r", directions, gates * 20, 20)]
    model = load_model(write(tmp_path / "m.onnx", [node], weights, [rows(7, 2, 12)], ["y"]))
    assert count_macs(model, {}) == {"y": 7 * 2 * directions * gates * 20 * (12 + 20)}


@pytest.mark.parametrize(
    ("equation", "x", "w", "macs"),
    [
        ("nsc,cd->nsd", (2, 7, 12), (12, 20), 2 * 7 * 12 * 20),
        ("bhqd,bhkd->bhqk", (2, 3, 7, 8), (2, 3, 5, 8), 2 * 3 * 7 * 5 * 8),
        ("...ij,jk", (4, 6, 12), (12, 20), 4 * 6 * 12 * 20),
        ("...ij,...jk->...ik", (4, 6, 12), (1, 12, 20), 4 * 6 * 12 * 20),
    ],
)
def test_einsum_counts(tmp_path: Path, equation: str, x: tuple[int, ...], w: tuple[int, ...], macs: int) -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    model = load_model(write(tmp_path / "m.onnx", [node], [weight("w", *w)], [rows(*x)], ["y"]))
    assert count_macs(model, {}) == {"y": macs}


@pytest.mark.parametrize("heads_have_an_axis", [True, False])
def test_attention_counts(tmp_path: Path, heads_have_an_axis: bool) -> None:
    """2 sequences, 6 query and 3 key heads, 7 queries, 5 keys of size 8, values of size 10."""
    heads: dict[str, Any] = {}
    if heads_have_an_axis:
        inputs = [rows(2, 6, 7, 8, name="q"), rows(2, 3, 5, 8, name="k"), rows(2, 3, 5, 10, name="v")]
    else:
        inputs = [rows(2, 7, 48, name="q"), rows(2, 5, 24, name="k"), rows(2, 5, 30, name="v")]
        heads = {"q_num_heads": 6, "kv_num_heads": 3}
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], **heads)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", inputs, [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), tmp_path / "m.onnx")
    assert count_macs(load_model(tmp_path / "m.onnx"), {}) == {"y": 2 * 6 * 7 * 5 * (8 + 10)}


def test_deformable_convolutions_count(tmp_path: Path) -> None:
    nodes = [helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], pads=[1, 1, 1, 1])]
    weights = [weight("w", 32, CHANNELS, 3, 3), weight("offset", 1, 18, 8, 8)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input(batch=1)], ["y"], opset=19))
    assert count_macs(model, {}) == {"y": 8 * 8 * 32 * CHANNELS * 9}


def test_the_int8_fraction_counts_what_cannot_run_in_int8(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("LSTM", ["a", "w", "r"], ["", "y"], hidden_size=64),
    ]
    weights = [weight("v", 32, 32), weight("w", 1, 256, 32), weight("r", 1, 256, 64)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [rows(10, 4, 32)], ["y"]))
    fraction = int8_fraction(plan_quantization(model.to_ir().graph), count_macs(model, {}))
    assert fraction == pytest.approx(32 * 32 / (32 * 32 + 256 * (32 + 64)))


def test_operators_of_onnx_runtime_do_not_hide_what_is_behind_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        helper.make_node("MatMul", ["g", "w"], ["y"]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7, 20])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 7, 12])
    graph = helper.make_graph(nodes, "g", [x], [y], [weight("w", 12, 20)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
    assert count_macs(load_model(tmp_path / "m.onnx"), {"x": (3, 7, 12)}) == {"y": 3 * 7 * 12 * 20}
