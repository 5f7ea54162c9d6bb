"""`quantize_model` and `lint_model`."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import trt_ptq
from tests.networks import images, residual_cnn
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model

BATCHES = [images(4, seed=index) for index in range(5)]
QDQ_FILES = sorted((Path(__file__).parents[1] / "files" / "qdq").glob("tiny.*.onnx"))


@pytest.fixture
def table(cnn: Model) -> trt_ptq.CalibrationTable:
    return trt_ptq.calibrate(cnn, BATCHES).table("minmax")


def run(path: Path) -> Any:
    return ort.InferenceSession(path).run(None, {"x": BATCHES[0]})[0]


def saved(model: trt_ptq.QuantizedModel, path: Path) -> Path:
    model.save(path)
    return path


@pytest.mark.parametrize("form", [str, Path, onnx.load, trt_ptq.load_model], ids=["text", "path", "proto", "loaded"])
def test_every_form_of_model_and_table_gives_the_same_bytes(
    cnn: Model, table: trt_ptq.CalibrationTable, tmp_path: Path, form: Any
) -> None:
    table.save(tmp_path / "table.json")
    first = saved(trt_ptq.quantize_model(cnn, table), tmp_path / "first.onnx")
    second = saved(trt_ptq.quantize_model(form(cnn.path), tmp_path / "table.json"), tmp_path / "second.onnx")
    assert first.read_bytes() == second.read_bytes()
    np.testing.assert_allclose(run(first), run(cnn.path), atol=0.2)


def test_a_model_shows_how_much_of_it_runs_in_int8(cnn: Model, table: trt_ptq.CalibrationTable) -> None:
    quantized = trt_ptq.quantize_model(cnn, table)
    int8 = sum(node.is_int8 for node in quantized.nodes)
    assert int8 > 0
    assert repr(quantized).startswith(f"QuantizedModel({int8} of {len(quantized.nodes)} quantizable nodes in INT8, ")


def test_errors_name_a_model_without_a_file_not_its_temporary_file(cnn: Model) -> None:
    proto = onnx.load(cnn.path)
    del proto.graph.node[:]
    with pytest.raises(trt_ptq.ModelError, match=r"onnx\.ModelProto 'network'") as refused:
        trt_ptq.calibrate(proto, BATCHES)
    assert "model.fp32.onnx" not in str(refused.value)


def test_nodes_are_excluded_by_pattern(cnn: Model, table: trt_ptq.CalibrationTable) -> None:
    nodes = trt_ptq.quantize_model(cnn, table, nodes_to_exclude="Conv").nodes
    assert {node.output for node in nodes if node.is_int8 and node.op_type == "Conv"} == set()
    assert any(node.is_int8 for node in nodes)


def test_float16_around_int8(cnn: Model, table: trt_ptq.CalibrationTable, tmp_path: Path) -> None:
    model = trt_ptq.quantize_model(cnn, table, high_precision="fp16", data=BATCHES)
    path = saved(model, tmp_path / "m.onnx")
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types


def test_weights_of_a_temporary_file_last_as_long_as_the_result(
    cnn: Model, table: trt_ptq.CalibrationTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr("trt_ptq.api.inputs.model_input._LARGEST_IN_ONE_FILE", 1)
    expected = saved(trt_ptq.quantize_model(cnn, table), tmp_path / "expected.onnx")
    result = trt_ptq.quantize_model(onnx.load(cnn.path), table)
    assert any(file.suffix == ".data" for file in scratch.rglob("*"))
    assert saved(result, tmp_path / "m.onnx").read_bytes() == expected.read_bytes()
    del result
    gc.collect()
    assert not list(scratch.iterdir())


def test_a_proto_whose_weights_are_elsewhere_is_refused(cnn_path: Path, table: trt_ptq.CalibrationTable) -> None:
    onnx.save(onnx.load(cnn_path), cnn_path, save_as_external_data=True, location="w.bin", size_threshold=0)
    proto = onnx.load(cnn_path, load_external_data=False)
    with pytest.raises(trt_ptq.UsageError, match="give the path of the model"):
        trt_ptq.quantize_model(proto, table)


def test_the_callers_proto_is_not_changed(cnn_path: Path, table: trt_ptq.CalibrationTable) -> None:
    proto = onnx.load(cnn_path)
    before = proto.SerializeToString(deterministic=True)
    trt_ptq.quantize_model(proto, table)
    assert proto.SerializeToString(deterministic=True) == before


def test_a_table_of_another_model_is_refused(table: trt_ptq.CalibrationTable, tmp_path: Path) -> None:
    other = residual_cnn(tmp_path / "other.onnx", seed=1)
    with pytest.raises(trt_ptq.TableError, match="another model"):
        trt_ptq.quantize_model(other, table)
    assert trt_ptq.quantize_model(other, table, allow_other_model=True).nodes


def test_what_is_no_table_is_refused(cnn: Model) -> None:
    with pytest.raises(trt_ptq.UsageError, match="`table` must be"):
        trt_ptq.quantize_model(cnn, {"x": 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("path", QDQ_FILES, ids=lambda path: path.stem)
def test_models_of_other_tools_are_linted_from_a_path_or_a_proto(path: Path) -> None:
    assert trt_ptq.lint_model(str(path)) == trt_ptq.lint_model(onnx.load(path))


def test_statistics_are_compared_with_the_ranges(cnn: Model, tmp_path: Path) -> None:
    statistics = trt_ptq.calibrate(cnn, BATCHES)
    statistics.save(tmp_path / "stats.safetensors")
    path = saved(trt_ptq.quantize_model(cnn, statistics.table("minmax")), tmp_path / "m.onnx")
    assert trt_ptq.lint_model(path, statistics) == trt_ptq.lint_model(path, tmp_path / "stats.safetensors")


def test_a_float_model_has_nothing_to_lint(cnn: Model) -> None:
    with pytest.raises(trt_ptq.ModelError, match="quantized"):
        trt_ptq.lint_model(cnn)


def test_the_graph_can_be_read_after_the_call(cnn: Model, table: trt_ptq.CalibrationTable) -> None:
    model = trt_ptq.quantize_model(onnx.load(cnn.path), table).model
    assert isinstance(model, ir.Model)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph) > 0


def test_a_model_says_how_the_table_matched_and_what_stays_in_fp32(cnn: Model) -> None:
    ranges = {**trt_ptq.calibrate(cnn, BATCHES).table().amax, "of another network": 1.0}
    large = [1e5 * batch for batch in BATCHES]
    model = trt_ptq.quantize_model(cnn, trt_ptq.CalibrationTable(ranges), high_precision="fp16", data=large)
    assert [unmatched.name for unmatched in model.ranges.unknown] == ["of another network"]
    assert model.high_precision == "fp16"
    assert {"c1", "r1"} <= {node.output for node in model.fp32_nodes}


def test_arguments_without_effect_are_refused(cnn: Model, table: trt_ptq.CalibrationTable) -> None:
    with pytest.raises(UsageError, match=r"`data` .* use `high_precision=fp16`"):
        trt_ptq.quantize_model(cnn, table, data=BATCHES)
    with pytest.raises(UsageError, match=r"`target=rtx` .* needs `high_precision=fp16`"):
        trt_ptq.quantize_model(cnn, table, target="rtx")
