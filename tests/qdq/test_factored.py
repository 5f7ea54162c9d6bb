"""The factored form of convolutions: the same function as per-channel scales, and what TensorRT-RTX makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_file import load_plan, plan_path
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.fp16.target_form import convert_for_target
from trt_ptq.lint.linter import lint_model
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.provenance import ModelIdentity
from trt_ptq.qdq.factored import factor_weights
from trt_ptq.qdq.insert import QdqModel, insert_qdq
from trt_ptq.qdq.ranges.read_ranges import read_qdq_ranges
from trt_ptq.types import Array, ShapeProfile

RANGES = CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})
AMAX = {"x": 1.0, "c1": 4.0, "r1": 4.0, "c2": 8.0, "a": 8.0, "r2": 8.0, "p": 8.0, "f": 8.0, "y": 50.0}


def run(qdq: QdqModel, path: Path, feeds: dict[str, Array]) -> Array:
    save_model(qdq.model, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def test_a_residual_network_computes_the_same(cnn: Model, tmp_path: Path) -> None:
    feeds = {"x": images(4)}
    expected = run(insert_qdq(cnn, RANGES), tmp_path / "channel.onnx", feeds)
    qdq = insert_qdq(cnn, RANGES)
    result = factor_weights(qdq, AMAX)
    assert (result.factored, result.folded, result.per_channel) == (("c1", "c2"), (), ())
    np.testing.assert_allclose(run(qdq, tmp_path / "factored.onnx", feeds), expected, rtol=1e-4, atol=1e-4)
    kernels = {node.input[0]: node for node in onnx.load(tmp_path / "factored.onnx").graph.node}
    assert kernels["w1.int8"].op_type == "DequantizeLinear"


@pytest.mark.parametrize(("axes", "group"), [(1, 1), (2, 4), (3, 1), (2, CHANNELS)])
def test_any_number_of_axes_and_groups(axes: int, group: int, tmp_path: Path) -> None:
    kernel = weight("w", CHANNELS, CHANNELS // group, *[3] * axes)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], group=group, pads=[1] * (2 * axes)),
        helper.make_node("HardSwish", ["c"], ["h"]),
        helper.make_node("Conv", ["h", "v"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, CHANNELS, *[5] * axes])
    weights = [kernel, weight("b", CHANNELS), weight("v", CHANNELS, CHANNELS, *[2] * axes)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [x], ["y"]))
    table = CalibrationTable({"x": 3.0, "h": 4.0})
    feeds = {"x": np.random.default_rng(0).normal(size=(2, CHANNELS, *[5] * axes)).astype(np.float32)}
    expected = run(insert_qdq(model, table), tmp_path / "channel.onnx", feeds)
    qdq = insert_qdq(model, table)
    assert factor_weights(qdq, {"c": 9.0, "h": 9.0, "y": 30.0}).factored == ("c", "y")
    np.testing.assert_allclose(run(qdq, tmp_path / "factored.onnx", feeds), expected, rtol=1e-4, atol=1e-4)


def folding_chain(path: Path) -> Model:
    """x -> c1 -> Relu -> MaxPool -> c2 -> Relu -> c3, the last two depthwise and pointwise."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=CHANNELS),
        helper.make_node("Conv", ["p1", "w3"], ["c3"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "c3"], ["y"]),
    ]
    shapes = {"w1": (CHANNELS, CHANNELS, 3, 3), "w2": (CHANNELS, 1, 3, 3), "w3": (CHANNELS, CHANNELS, 3, 3)}
    weights = [weight(name, *shape) for name, shape in shapes.items()]
    weights += [weight("b1", CHANNELS), weight("b2", CHANNELS)]
    return load_model(write(path, nodes, weights, [image_input(batch=2)], ["y"]))


def test_ratios_move_into_float_convolutions_that_follow(tmp_path: Path) -> None:
    model = folding_chain(tmp_path / "m.onnx")
    table = CalibrationTable({"x": 1.0})  # c2 and c3 have no range, and stay in float
    feeds = {"x": images(2)}
    expected = run(insert_qdq(model, table), tmp_path / "channel.onnx", feeds)
    qdq = insert_qdq(model, table)
    result = factor_weights(qdq, {"c1": 4.0, "r1": 4.0, "p1": 4.0, "y": 9.0})
    assert (result.factored, result.folded) == ((), ("c1",))
    np.testing.assert_allclose(run(qdq, tmp_path / "folded.onnx", feeds), expected, rtol=1e-4, atol=1e-4)
    written = onnx.load(tmp_path / "folded.onnx").graph
    assert "Mul" not in {node.op_type for node in written.node}
    assert {"c1", "r1", "p1"}.isdisjoint(value for node in written.node for value in node.output)  # other values now
    assert {"c1.raw", "r1.raw", "p1.raw"} <= result.amax.keys()


def scaled_convolution(path: Path, factors: Array) -> Model:
    """y = Conv(x), whose channels have weights of very different magnitudes."""
    kernel = numpy_helper.to_array(weight("w", CHANNELS, CHANNELS, 3, 3)) * factors.reshape(-1, 1, 1, 1)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    return load_model(write(path, nodes, [numpy_helper.from_array(kernel, "w")], [image_input(batch=2)], ["y"]))


def test_channels_that_vanish_do_not_hinder(tmp_path: Path) -> None:
    factors = np.ones(CHANNELS, np.float32)
    factors[:3] = 0, 1e-18, 1e-6
    qdq = insert_qdq(scaled_convolution(tmp_path / "m.onnx", factors), CalibrationTable({"x": 1.0}))
    assert factor_weights(qdq, {"c": 8.0, "y": 8.0}).factored == ("c",)


def test_a_convolution_stays_per_channel_where_float16_is_too_narrow(tmp_path: Path) -> None:
    factors = np.geomspace(1e-4, 1, CHANNELS).astype(np.float32)
    qdq = insert_qdq(scaled_convolution(tmp_path / "m.onnx", factors), CalibrationTable({"x": 1e6}))
    result = factor_weights(qdq, {"x": 1e6, "c": 1.5e4, "y": 1.5e4})
    assert [kept.output for kept in result.per_channel] == ["c"]
    assert "with one scale it would leave the range of float16" in result.per_channel[0].reason


def test_the_result_before_the_ratios_stays_in_the_range_of_float16(tmp_path: Path) -> None:
    """The output reaches 15000 in channels whose scales are 64 times the others'."""
    factors = np.ones(CHANNELS, np.float32)
    factors[: CHANNELS // 4] = 64
    model = scaled_convolution(tmp_path / "m.onnx", factors)
    x = images(2) * 200
    amax = float(np.abs(run(insert_qdq(model, CalibrationTable({"x": 200.0})), tmp_path / "c.onnx", {"x": x})).max())
    qdq = insert_qdq(model, CalibrationTable({"x": 200.0}))
    result = factor_weights(qdq, {"x": 200.0, "c": amax, "y": amax})
    assert result.factored == ("c",)
    qdq.model.graph.outputs.append(next(node.outputs[0] for node in qdq.model.graph if node.op_type == "Conv"))
    save_model(qdq.model, tmp_path / "raw.onnx")
    raw = ort.InferenceSession(tmp_path / "raw.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[1]
    assert np.abs(raw).max() <= result.amax["c.raw"] <= np.finfo(np.float16).max / 4


def plan_of(model: Path) -> EnginePlan:
    engine = model.with_suffix(".engine")
    shapes = {"x": ShapeProfile((2, CHANNELS, 8, 8), (2, CHANNELS, 8, 8), (2, CHANNELS, 8, 8))}
    build_engine(EngineSpec(model, engine, "int8", ModelIdentity("graph", "weights"), shapes), "rtx")
    return load_plan(plan_path(engine))


@pytest.mark.parametrize("target", ["trt", "rtx"])
def test_rtx_writes_float16_only_in_the_factored_form(target: Any, cnn: Model, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    form = convert_for_target(insert_qdq(cnn, RANGES), AMAX, target)
    save_model(form.converted.model, tmp_path / "int8.onnx")
    plan = plan_of(tmp_path / "int8.onnx")
    convolutions = [kernel for kernel in plan.kernels if kernel.kind == "correlation"]
    assert {kernel.precision for kernel in convolutions} == {"int8"}
    written = {kernel.outputs[0].dtype for kernel in convolutions}
    assert written == ({"float16"} if target == "rtx" else {"float32"})


def test_linter_and_range_reader_accept_the_form(cnn: Model, tmp_path: Path) -> None:
    form = convert_for_target(insert_qdq(cnn, RANGES), AMAX, "rtx")
    save_model(form.converted.model, tmp_path / "int8.onnx")
    assert lint_model(tmp_path / "int8.onnx") == []
    read = read_qdq_ranges(tmp_path / "int8.onnx").table.amax
    assert read == pytest.approx({"x": 1.0, "r1": 3.0, "r2": 4.0, "f": 4.0}, rel=1e-3)  # float16 scales
