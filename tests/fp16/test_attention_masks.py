"""Attention masks that float16 cannot hold are clamped where no output changes; elsewhere they stay float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import trt_ptq
from tests.fp16.float16_models import converted, run, scalar, types
from tests.networks import image_input, images, write
from trt_ptq.calibration.measurements.magnitudes import measure_amax
from trt_ptq.data.sources import InMemorySource
from trt_ptq.fp16.emulate import emulate_float16
from trt_ptq.onnx_io.load import load_model
from trt_ptq.types import Array, Batch

LOWEST = float(np.finfo(np.float32).min)
FLOAT16 = TensorProto.FLOAT16
WHERE = [helper.make_node("Where", ["seen", "scores", "lowest"], ["masked"])]
ADDED = [
    helper.make_node("Where", ["seen", "zero", "lowest"], ["mask"]),
    helper.make_node("Add", ["scores", "mask"], ["masked"]),
]
MULTIPLIED = [
    helper.make_node("Cast", ["seen"], ["number"], to=TensorProto.FLOAT),
    helper.make_node("Sub", ["unit", "number"], ["hidden"]),
    helper.make_node("Mul", ["hidden", "lowest"], ["mask"]),
    helper.make_node("Add", ["scores", "mask"], ["masked"]),
]


def attention(path: Path, masking: list[onnx.NodeProto], size: float = 0.1, lowest: float = LOWEST) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["products"]),
        helper.make_node("Mul", ["products", "size"], ["scores"]),
        *masking,
        helper.make_node("Softmax", ["masked"], ["p"]),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
    ]
    used = {name for node in nodes for name in node.input}
    values = {"zero": 0, "unit": 1, "lowest": lowest, "size": size}
    constants = [scalar(name, value) for name, value in values.items() if name in used]
    inputs = [image_input(), helper.make_tensor_value_info("seen", TensorProto.BOOL, [1, 1, 8, 8])]
    return write(path, nodes, constants, inputs, ["y"])


def feeds(blind: int | None = 3) -> dict[str, Array]:
    """Every position sees those before it; `blind` sees nothing, so its row of scores is masked as a whole."""
    seen = np.tril(np.ones((1, 1, 8, 8), bool))
    if blind is not None:
        seen[..., blind, :] = False
    return {"x": images(2), "seen": seen}


def measured(path: Path, blind: int | None = 3) -> dict[str, float]:
    return measure_amax(load_model(path), InMemorySource([Batch(feeds(blind), "batch 0")]))


@pytest.mark.parametrize("masking", [WHERE, ADDED, MULTIPLIED], ids=["where", "added", "multiplied"])
@pytest.mark.parametrize("lowest", [LOWEST, -1e9])
def test_a_mask_is_clamped_and_no_output_changes(tmp_path: Path, masking: list[onnx.NodeProto], lowest: float) -> None:
    path = attention(tmp_path / "m.onnx", masking, lowest=lowest)
    proto, result = converted(path, measured(path))
    assert {mask.name: mask.value for mask in result.clamped_masks} == {"lowest": float(np.float32(lowest))}
    assert {node.cause for node in result.fp32_nodes} <= {"exactness"}  # what is computed from integers
    dtypes = types(proto)
    assert dtypes["masked"] == dtypes["p"] == FLOAT16
    emulate_float16(result.model)  # without rounding, ONNX Runtime's CPU would not compute what float16 does
    y, expected = run(ir.to_proto(result.model), feeds()), run(path, feeds())
    np.testing.assert_allclose(y, expected, atol=0.003)
    np.testing.assert_allclose(y[:, :, 3], feeds()["x"].mean(2), atol=0.003)  # the row that sees nothing


def kept(path: Path, amax: dict[str, float]) -> bool:
    """Whether the mask keeps its constant, and the Softmax float32."""
    proto, result = converted(path, amax)
    return not result.clamped_masks and types(proto)["p"] == TensorProto.FLOAT


def test_large_scores_would_show_in_a_row_that_sees_nothing(tmp_path: Path) -> None:
    path = attention(tmp_path / "m.onnx", ADDED)
    amax = measured(path)
    assert kept(path, amax | {"scores": 16.0})
    assert not kept(path, amax | {"scores": 15.0})


@pytest.mark.parametrize("masking", [ADDED, MULTIPLIED], ids=["added", "multiplied"])
def test_large_scores_change_nothing_where_every_row_sees_something(
    tmp_path: Path, masking: list[onnx.NodeProto]
) -> None:
    path = attention(tmp_path / "m.onnx", masking, size=15)
    amax = measured(path, blind=None)
    assert amax["scores"] > 50
    proto, result = converted(path, amax)
    (mask,) = result.clamped_masks
    assert mask.assumed
    assert mask.clamped - 4 * amax["scores"] >= -65504
    assert types(proto)["p"] == FLOAT16
    emulate_float16(result.model)
    rounded = ir.to_proto(result.model)
    np.testing.assert_allclose(run(rounded, feeds(None)), run(path, feeds(None)), atol=0.05)
    assert np.isfinite(run(rounded, feeds())).all()  # a row that sees nothing, which the data had not


def test_a_row_that_sees_nothing_and_large_scores_keep_the_constant(tmp_path: Path) -> None:
    path = attention(tmp_path / "m.onnx", ADDED, size=15)
    assert kept(path, measured(path))
    assert not kept(path, measured(path, blind=None))


def test_scores_as_large_as_the_constant_keep_it(tmp_path: Path) -> None:
    path = attention(tmp_path / "m.onnx", ADDED)
    amax = measured(path, blind=None)
    assert kept(path, amax | {"scores": 5000.0, "products": 5000.0})
    assert not kept(path, amax | {"scores": 4000.0, "products": 4000.0})


def test_float32_holds_scores_beside_a_small_constant(tmp_path: Path) -> None:
    path = attention(tmp_path / "m.onnx", ADDED, lowest=-1e5)
    assert kept(path, measured(path))


@pytest.mark.parametrize("op_type", ["LogSoftmax", "ReduceMax", "Exp"])
def test_a_mask_that_is_read_otherwise_keeps_its_constant(tmp_path: Path, op_type: str) -> None:
    reader = helper.make_node(op_type, ["masked"], ["other"])
    path = attention(tmp_path / "m.onnx", [*ADDED, reader])
    assert kept(path, measured(path) | {"other": 1.0})


def test_a_factor_that_is_no_mask_keeps_the_constant(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["scores", "lowest"], ["masked"])]
    path = attention(tmp_path / "m.onnx", nodes)
    assert kept(path, measured(path) | {"scores": 1.0})


def test_without_measurements_no_constant_changes(tmp_path: Path) -> None:
    assert not converted(attention(tmp_path / "m.onnx", WHERE))[1].clamped_masks


def test_quantize_does_not_warn_of_a_constant_whose_change_changes_no_output(tmp_path: Path) -> None:
    path = attention(tmp_path / "m.onnx", ADDED, size=0.01)
    data = [{"x": images(2, seed=seed), "seen": feeds()["seen"]} for seed in range(8)]
    config = trt_ptq.QuantizeConfig(backend="none", search=False, techniques=(), method="minmax", attention=True)
    trt_ptq.quantize(path, data, output_dir=tmp_path / "out", config=config)
    report = trt_ptq.load_report(tmp_path / "out" / "report.json")
    assert not any("'lowest'" in warning for warning in report.warnings)
    assert not report.fp32_nodes
