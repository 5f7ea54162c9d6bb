"""`build_engine`: float models are converted, Q/DQ models of any tool are built as they stand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import trt_ptq
from tests.networks import WIDTH, images, transformer_block
from trt_ptq.engines.manifest import read_manifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.onnx_io.load import Model

BATCHES = [images(4, seed=index) for index in range(5)]
SHAPES = {"x": "1x16x8x8:4x16x8x8:8x16x8x8"}
QDQ_FILES = sorted((Path(__file__).parents[1] / "files" / "qdq").glob("tiny.*.onnx"))


@pytest.fixture
def table(cnn: Model) -> trt_ptq.CalibrationTable:
    return trt_ptq.calibrate(cnn, BATCHES).table("minmax")


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[EngineSpec, bytes]]:
    """What a builder was asked for, with the model's bytes; nothing is built."""
    asked: list[tuple[EngineSpec, bytes]] = []

    def build(spec: EngineSpec, _backend: str) -> None:
        asked.append((spec, spec.onnx.read_bytes()))

    monkeypatch.setattr("trt_ptq.api.engine._build_engine", build)
    return asked


def ops(model: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(model).graph.node}


def test_a_float_model_with_a_table_is_built_in_int8(
    cnn: Model, tmp_path: Path, table: trt_ptq.CalibrationTable
) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "m.engine"
    manifest = trt_ptq.build_engine(onnx.load(cnn.path), engine, table=table, shapes=SHAPES, backend="rtx")
    assert (manifest.precision, read_manifest(engine)) == ("int8", manifest)
    assert {file.name for file in tmp_path.iterdir()} >= {"m.engine", "m.engine.json"}


@pytest.mark.parametrize("path", QDQ_FILES, ids=lambda path: path.stem)
def test_a_qdq_model_of_any_tool_is_built_as_it_stands(
    path: Path, tmp_path: Path, specs: list[tuple[EngineSpec, bytes]]
) -> None:
    trt_ptq.build_engine(path, tmp_path / "m.engine")
    [(spec, model)] = specs
    assert (spec.precision, spec.onnx) == ("int8", path)
    assert model == path.read_bytes()


@pytest.mark.parametrize(("precision", "expected"), [(None, "fp16"), ("fp16", "fp16"), ("fp32", "fp32")])
def test_a_float_model_without_a_table_is_built_in_float(
    cnn: Model, tmp_path: Path, specs: list[tuple[EngineSpec, bytes]], precision: Any, expected: str
) -> None:
    trt_ptq.build_engine(cnn.path, tmp_path / "m.engine", precision=precision, shapes=SHAPES)
    [(spec, model)] = specs
    assert spec.precision == expected
    assert "QuantizeLinear" not in ops(model)
    assert spec.profiles == {"x": trt_ptq.ShapeProfile((1, 16, 8, 8), (4, 16, 8, 8), (8, 16, 8, 8))}


def test_a_table_file_converts_to_qdq(
    cnn: Model, tmp_path: Path, table: trt_ptq.CalibrationTable, specs: list[tuple[EngineSpec, bytes]]
) -> None:
    table.save(tmp_path / "calibration.cache")
    trt_ptq.build_engine(cnn.path, tmp_path / "m.engine", table=tmp_path / "calibration.cache")
    [(spec, model)] = specs
    assert spec.precision == "int8"
    assert "QuantizeLinear" in ops(model)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".trt-ptq")] == []


@pytest.mark.parametrize("attention", [False, True])
def test_the_matmuls_of_attention_are_quantized_on_request(
    tmp_path: Path, specs: list[tuple[EngineSpec, bytes]], attention: bool
) -> None:
    model = transformer_block(tmp_path / "block.onnx")
    batches = [np.random.default_rng(0).normal(size=(2, 4, WIDTH)).astype(np.float32)]
    table = trt_ptq.calibrate(model, batches, attention=True).table("minmax")
    trt_ptq.build_engine(model, tmp_path / "m.engine", table=table, attention=attention)
    nodes = {node.output[0]: node for node in onnx.load_model_from_string(specs[0][1]).graph.node}
    inputs = {nodes[name].op_type for name in nodes["scores"].input}
    assert ("DequantizeLinear" in inputs) == attention


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"precision": "int8"}, "`precision=int8` needs `table`"),
        ({"precision": "int4"}, "`precision` must be one of"),
        ({"backend": "tvm"}, "tvm"),
        ({"attention": True}, "`attention` need `table`"),
        ({"shapes": {"x": "1xn"}}, "`shapes`"),
        ({"shapes": {"z": "1x2"}}, "unknown input 'z'"),
    ],
)
def test_invalid_arguments_are_named(cnn: Model, tmp_path: Path, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(trt_ptq.UsageError, match=named):
        trt_ptq.build_engine(cnn, tmp_path / "m.engine", **arguments)


def test_a_missing_backend_that_was_named_is_refused_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(trt_ptq.MissingPackageError, match=r'pip install "trt-ptq\[rtx\]"'):
        trt_ptq.build_engine(tmp_path / "absent.onnx", tmp_path / "m.engine", backend="rtx")


@pytest.mark.parametrize("arguments", [{"precision": "fp16"}, {"table": "calibration.cache"}])
def test_a_qdq_model_is_never_converted_again(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(trt_ptq.UsageError, match="quantized"):
        trt_ptq.build_engine(QDQ_FILES[0], tmp_path / "m.engine", **arguments)


def test_an_engine_never_replaces_its_model(cnn: Model) -> None:
    with pytest.raises(trt_ptq.OutputError, match="cannot write"):
        trt_ptq.build_engine(cnn, cnn.path)
