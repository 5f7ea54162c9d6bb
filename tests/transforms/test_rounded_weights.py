"""GPTQ on models: what is rounded, the bytes of the Q/DQ model, and the float model that leads to them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import WIDTH, sequences, transformer_block, weight, write
from tests.pipeline.quantizing import chain_path
from tests.pipeline.quantizing import source as images
from trt_ptq.calibration.measurements import second_moments
from trt_ptq.calibration.measurements.second_moments import measure_second_moments
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.data.scratch import Scratch
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import run_part
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import QdqModel, insert_qdq
from trt_ptq.qdq.node_selection import select_weight_only
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.transforms.rounded_weights import replace_weights, round_weights
from trt_ptq.types import Array, Batch

_MIXING = (
    np.random.default_rng(1).standard_normal((WIDTH, WIDTH)).astype(np.float32) * np.geomspace(1, 0.01, WIDTH)[:, None]
)
DATA = (sequences(24, 10) @ _MIXING).astype(np.float32)  # channels that go together, as in trained networks
INT8_WEIGHTS = ("w_q", "w_k", "w_v", "w_out", "w_up", "w_down")


def source(data: Array = DATA) -> ArraySource:
    return ArraySource("x.npz", {"x": data}, batch_size=8)


@pytest.fixture
def block(tmp_path: Path) -> Model:
    return load_model(transformer_block(tmp_path / "m.onnx"))


def weight_only(model: Model, stored: StoredWeights | None = None, patterns: Iterable[str] = ("*",)) -> QdqModel:
    layers = select_weight_only(model.to_ir().graph, [*patterns])
    return insert_qdq(model, CalibrationTable({}), weight_only=layers, stored_weights=stored)


def saved(model: QdqModel, path: Path) -> onnx.ModelProto:
    model.save(path)
    return onnx.load(path)


def integers(proto: onnx.ModelProto, names: Iterable[str]) -> dict[str, Array]:
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {name: arrays[f"{name}.int8"] for name in names}


def output_error(model: Model, proto: onnx.ModelProto) -> float:
    exact, actual = (
        ort.InferenceSession(one.SerializeToString()).run(None, {"x": DATA})[0] for one in (model.proto, proto)
    )
    return float(np.linalg.norm(exact - actual) / np.linalg.norm(exact))


def test_moments_are_those_of_all_rows_in_any_number_of_passes(block: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"x": WIDTH, "n1": WIDTH, "swish": 2 * WIDTH}
    measured = dict(measure_second_moments(block, source(), tensors))
    rows = DATA.reshape(-1, WIDTH).astype(np.float64)
    np.testing.assert_allclose(measured["x"], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(second_moments, "_MIN_BYTES", 1)
    again = dict(measure_second_moments(block, source(), tensors))
    assert list(again) == list(measured) == list(tensors)
    for name in tensors:
        np.testing.assert_allclose(again[name], measured[name], rtol=1e-6)


@pytest.mark.parametrize("has_room", [True, False])
def test_a_pass_starts_where_the_one_before_ended(
    block: Model, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    tensors = {"x": WIDTH, "n1": WIDTH, "swish": 2 * WIDTH}
    measured = dict(measure_second_moments(block, source(), tensors))
    inputs: list[set[str]] = []

    def recorded(session: ort.InferenceSession, batch: Batch) -> list[Array]:
        inputs.append({value.name for value in session.get_inputs()} & batch.feeds.keys())
        return run_part(session, batch)

    monkeypatch.setattr(second_moments, "run_part", recorded)
    monkeypatch.setattr(second_moments, "_MIN_BYTES", 1)
    if not has_room:
        monkeypatch.setattr(second_moments, "Scratch", partial(Scratch, limit_bytes=0))
    again = dict(measure_second_moments(block, source(), tensors))
    for name in tensors:
        np.testing.assert_allclose(again[name], measured[name], rtol=1e-6)
    read = [set(names) for names in inputs[::3]]  # three batches
    assert len(inputs) == 9
    assert "n1" in read[2] if has_room else read == [{"x"}] * 3


def test_a_pass_ends_when_it_has_seen_enough_rows(block: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_moments, "_MIN_ROWS", 2 * WIDTH)
    first = dict(measure_second_moments(block, source(DATA[:8]), {"x": WIDTH}))  # 80 rows
    everything = dict(measure_second_moments(block, source(), {"x": WIDTH}))
    np.testing.assert_array_equal(everything["x"], first["x"])
    wider = dict(measure_second_moments(block, source(), {"x": WIDTH, "swish": 2 * WIDTH}))  # 128 rows
    assert (wider["x"] != first["x"]).any()


def test_nonfinite_inputs_are_refused_by_name(block: Model) -> None:
    data = DATA.copy()
    data[10, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"x\.npz.*samples 8 to 15: tensor 'n1' has NaN.*without GPTQ"):
        dict(measure_second_moments(block, source(data), {"n1": WIDTH}))


def test_rows_with_nonfinite_values_are_left_out_where_they_are_skipped(block: Model) -> None:
    data = DATA.copy()
    data[10, 0, 0], data[3, 4, 1] = np.nan, np.inf
    measured = dict(measure_second_moments(block, source(data), {"x": WIDTH}, nonfinite="skip"))["x"]
    rows = np.delete(DATA.reshape(-1, WIDTH), [10 * 10, 3 * 10 + 4], axis=0).astype(np.float64)
    np.testing.assert_allclose(measured, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="the memory of a process is not reported")
def test_a_memory_limit_leads_to_more_passes_with_the_same_result(
    block: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, groups = {"x": WIDTH, "n1": WIDTH, "swish": 2 * WIDTH}, list[list[str]]()
    measure = second_moments._measure

    def recorded(model: Model, batches: Any, group: dict[str, int], *options: Any) -> Any:
        groups.append([*group])
        return measure(model, batches, group, *options)

    monkeypatch.setattr(second_moments, "_measure", recorded)
    plenty = dict(measure_second_moments(block, source(), tensors, limit_bytes=10**12))
    assert groups == [[*tensors]]
    groups.clear()
    little = dict(measure_second_moments(block, source(), tensors, limit_bytes=10**6))  # less than Python takes
    assert groups == [[name] for name in tensors]
    for name in tensors:
        np.testing.assert_allclose(little[name], plenty[name], rtol=1e-6)


def test_the_error_of_the_model_shrinks(block: Model, tmp_path: Path) -> None:
    stored = round_weights(block, source(), tmp_path / "w.int8")
    assert {name for name, _ in stored} == {*INT8_WEIGHTS}
    nearest, rounded = (
        saved(weight_only(block), tmp_path / "n.onnx"),
        saved(weight_only(block, stored), tmp_path / "r.onnx"),
    )
    onnx.checker.check_model(rounded, full_check=True)
    for name, values in integers(rounded, INT8_WEIGHTS).items():
        np.testing.assert_array_equal(values, stored[name, 1].values())
        assert (values != integers(nearest, [name])[name]).any()
    assert output_error(block, rounded) < 0.9 * output_error(block, nearest)


def test_the_same_data_gives_the_same_bytes(block: Model, tmp_path: Path) -> None:
    files = [tmp_path / "1.int8", tmp_path / "2.int8"]
    for file in files:
        round_weights(block, source(), file)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("patterns", [("*",), ("*up", "q")], ids=["all", "some"])
def test_the_float_model_with_its_weights_leads_to_the_same_bytes(
    block: Model, tmp_path: Path, patterns: tuple[str, ...]
) -> None:
    stored = round_weights(block, source(), tmp_path / "w.int8")
    quantized = weight_only(block, stored, patterns)
    float_model = block.to_ir()
    replace_weights(float_model.graph, quantized.plan, stored)
    save_model(float_model, tmp_path / "float.onnx")
    again = weight_only(load_model(tmp_path / "float.onnx"), None, patterns)
    quantized.save(tmp_path / "1.onnx")
    again.save(tmp_path / "2.onnx")
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def tied_head(path: Path, *, transposed: bool) -> Path:
    """Embeddings whose weight the head reads too, through a Transpose or by transB, and a weight with two inputs."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "shared"], ["h1"]),
        helper.make_node("Tanh", ["h1"], ["t1"]),
        helper.make_node("MatMul", ["t1", "shared"], ["h2"]),
        helper.make_node("Tanh", ["h2"], ["t2"]),
    ]
    if transposed:
        nodes += [
            helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]),
            helper.make_node("MatMul", ["t2", "head"], ["y"]),
        ]
    else:
        nodes.append(helper.make_node("Gemm", ["t2", "table"], ["y"], transB=1))
    weights = [weight("table", 40, 16), weight("shared", 16, 16)]
    return write(path, nodes, weights, [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])], ["y"])


@pytest.mark.parametrize("transposed", [True, False])
def test_embeddings_and_weights_with_several_inputs_keep_the_nearest_integers(tmp_path: Path, transposed: bool) -> None:
    model = load_model(tied_head(tmp_path / "m.onnx", transposed=transposed))
    ids = np.random.default_rng(0).integers(0, 40, 64)
    stored = round_weights(model, ArraySource("ids.npz", {"ids": ids}, batch_size=16), tmp_path / "w.int8")
    quantized = saved(weight_only(model, stored, ["*"]), tmp_path / "q.onnx")
    plain = saved(weight_only(model), tmp_path / "p.onnx")
    names = ["table", "shared"]
    for name, values in integers(quantized, names).items():
        np.testing.assert_array_equal(values, integers(plain, [name])[name])
    assert {name for name, _ in stored} == ({"head"} if transposed else set())


def test_a_weight_that_is_read_along_both_axes_keeps_the_nearest_integers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Gemm", ["x", "w"], ["b"], transB=1),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])
    model = load_model(write(tmp_path / "m.onnx", nodes, [weight("w", WIDTH, WIDTH)], [x], ["y"]))
    assert round_weights(model, source(DATA[:, 0]), tmp_path / "w.int8") == {}


def test_a_transposed_weight_is_rounded_as_the_layer_reads_it(tmp_path: Path) -> None:
    model = load_model(tied_head(tmp_path / "m.onnx", transposed=True))
    ids = np.random.default_rng(0).integers(0, 40, 64)
    stored = round_weights(model, ArraySource("ids.npz", {"ids": ids}, batch_size=16), tmp_path / "w.int8")
    quantized = weight_only(model, stored)
    float_model: ir.Model = model.to_ir()
    replace_weights(float_model.graph, quantized.plan, stored)
    save_model(float_model, tmp_path / "float.onnx")
    first = saved(quantized, tmp_path / "1.onnx")
    again = saved(weight_only(load_model(tmp_path / "float.onnx")), tmp_path / "2.onnx")
    for name in ("table", "head"):
        np.testing.assert_array_equal(integers(first, [name])[name], integers(again, [name])[name])


def test_convolutions_keep_the_nearest_integers(tmp_path: Path) -> None:
    assert round_weights(load_model(chain_path(tmp_path)), images(), tmp_path / "w.int8") == {}
