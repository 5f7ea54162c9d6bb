"""`plan_engine` and `read_plan`, with engines that TensorRT-RTX builds without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

import trt_ptq
from tests.networks import images
from trt_ptq.onnx_io.load import Model

pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
BATCHES = [images(4, seed=index) for index in range(3)]
SHAPES = {"x": "1x16x8x8:4x16x8x8:8x16x8x8"}


@pytest.fixture
def table(cnn: Model) -> trt_ptq.CalibrationTable:
    return trt_ptq.calibrate(cnn, BATCHES).table("minmax")


def test_a_model_is_planned_at_the_optimum_of_its_profile(cnn: Model, table: trt_ptq.CalibrationTable) -> None:
    plan = trt_ptq.plan_engine(cnn.path, shapes=SHAPES, table=table)
    assert (plan.shapes, plan.dynamic, plan.warnings) == ({"x": (4, 16, 8, 8)}, False, ())


def test_the_nodes_that_the_model_quantizes_are_known_and_an_excluded_node_is_none(
    cnn: Model, table: trt_ptq.CalibrationTable
) -> None:
    plan = trt_ptq.plan_engine(cnn.path, shapes=SHAPES, table=table)
    assert plan.quantized
    excluded = plan.quantized[0]
    without = trt_ptq.plan_engine(cnn.path, shapes=SHAPES, table=table, nodes_to_exclude=[excluded])
    assert set(without.quantized) == set(plan.quantized) - {excluded}
    assert trt_ptq.plan_engine(cnn.path, shapes=SHAPES).quantized == ()


def test_plans_are_compared_layer_by_layer(cnn: Model, table: trt_ptq.CalibrationTable) -> None:
    int8 = trt_ptq.plan_engine(cnn.path, shapes=SHAPES, table=table)
    compared = trt_ptq.compare_plans(int8, trt_ptq.plan_engine(cnn.path, shapes=SHAPES), "l4")
    assert compared.cost.gpu.name == "l4"
    assert {node for layer in compared.slow_layers for node in layer.exclude} <= set(int8.quantized)


def test_the_plan_of_an_engine_is_that_of_its_model(
    cnn: Model, table: trt_ptq.CalibrationTable, tmp_path: Path
) -> None:
    trt_ptq.build_engine(cnn.path, tmp_path / "m.engine", table=table, shapes={"x": "4x16x8x8"}, backend="rtx")
    kept = trt_ptq.read_plan(tmp_path / "m.engine")
    planned = trt_ptq.plan_engine(cnn.path, table=table, shapes={"x": "4x16x8x8"})
    assert (kept.bytes_moved, kept.quantized) == (planned.bytes_moved, planned.quantized)
