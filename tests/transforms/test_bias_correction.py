"""Bias correction of a Q/DQ model."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.measurements import bias_error
from trt_ptq.calibration.measurements.bias_error import measure_bias_error
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.data.sources import ArraySource
from trt_ptq.engines.building.rtx import build_rtx
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.fp16.emulate import emulate_float16
from trt_ptq.lint.linter import lint_model
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.provenance import ModelIdentity
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.transforms.bias_correction import correct_bias
from trt_ptq.types import Array, ShapeProfile

node = helper.make_node
PADS: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
DATA = images(16)


@pytest.fixture(autouse=True)
def every_mean_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is corrected can be told to the last channel."""
    monkeypatch.setattr(bias_error, "MIN_BIAS_FRACTION", 0.0)


def source() -> ArraySource:
    return ArraySource("x.npz", {"x": DATA}, batch_size=16)


def minmax(model: Model) -> CalibrationTable:
    return derive_table(collect_statistics(model, source(), select_calibration_tensors(model)), METHODS["minmax"])


def outputs_of(model: ir.Model | Model, tensors: list[str]) -> list[Array]:
    """`tensors`, computed on DATA."""
    proto = model.proto if isinstance(model, Model) else ir.to_proto(model)
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    return [array.astype(np.float64) for array in ort.InferenceSession(copy.SerializeToString()).run(None, {"x": DATA})]


def channel_errors(model: Model, quantized: ir.Model, tensors: list[str], axis: int = 1) -> list[float]:
    """The mean size of the channels' mean errors, for each of `tensors`."""
    pairs = zip(outputs_of(model, tensors), outputs_of(quantized, tensors), strict=True)
    return [mean_error(exact, rounded, axis) for exact, rounded in pairs]


def mean_error(exact: Array, rounded: Array, axis: int) -> float:
    others = tuple(one for one in range(exact.ndim) if one != axis % exact.ndim)
    return float(np.abs((exact - rounded).mean(axis=others)).mean())


def corrected(model: Model, nodes_to_exclude: tuple[str, ...] = ()) -> tuple[ir.Model, int]:
    table = minmax(model)
    result, count = correct_bias(insert_qdq(model, table, nodes_to_exclude), measure_bias_error(model, table, source()))
    return result.model, count


def constants(model: ir.Model) -> dict[str, Array]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}


def test_the_mean_error_of_every_layer_shrinks(cnn: Model) -> None:
    """c1 by the whole of it; the others read what layers before them have rounded, which their shifts leave out."""
    layers = ["c1", "c2", "y"]
    before = channel_errors(cnn, insert_qdq(cnn, minmax(cnn)).model, layers)
    model, count = corrected(cnn)
    after = channel_errors(cnn, model, layers)
    assert count == 3
    assert after[0] < 0.02 * before[0]
    assert all(one < 0.7 * other for one, other in zip(after, before, strict=True)), (before, after)


@pytest.mark.parametrize("layer", ["c1", "c2", "y"])
def test_the_mean_error_of_a_layer_that_alone_is_int8_is_gone(cnn: Model, layer: str) -> None:
    nodes_to_exclude = tuple({"c1", "c2", "a", "p", "y"} - {layer})
    (before,) = channel_errors(cnn, insert_qdq(cnn, minmax(cnn), nodes_to_exclude).model, [layer])
    model, count = corrected(cnn, nodes_to_exclude)
    assert count == 1
    assert channel_errors(cnn, model, [layer])[0] < 0.02 * before


def test_only_layers_in_int8_are_changed(cnn: Model) -> None:
    table = minmax(cnn)
    plain = constants(insert_qdq(cnn, table, ["c1", "y"]).model)
    model, count = corrected(cnn, ("c1", "y"))
    assert count == 1
    assert constants(model).keys() - plain.keys() == {"c2.bias"}
    assert np.array_equal(constants(model)["b1"], plain["b1"])


def test_weights_stay_unread(cnn: Model) -> None:
    model, _ = corrected(cnn)
    weights = [model.graph.initializers[name].const_value for name in ("w1.int8", "w2.int8", "w3.int8")]
    assert all(isinstance(one, ir.LazyTensor) for one in weights)


GEMMS: dict[str, tuple[dict[str, Any], tuple[int, ...] | None]] = {
    "no C": ({"beta": 3.0}, None),
    "a C of all channels": ({"beta": 2.0}, (24,)),
    "a C of one row": ({"alpha": 0.5}, (1, 24)),
    "a C of one number": ({}, ()),
    "a C of one column": ({}, (16, 1)),
    "a C that does not count": ({"beta": 0.0}, (24,)),
}


@pytest.mark.parametrize(("attributes", "shape"), GEMMS.values(), ids=GEMMS.keys())
def test_a_gemm_is_corrected_by_its_c(
    tmp_path: Path, attributes: dict[str, Any], shape: tuple[int, ...] | None
) -> None:
    weights = [weight("w", CHANNELS * 64, 24)] + ([] if shape is None else [weight("c", *shape)])
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("Gemm", ["f", *(one.name for one in weights)], ["y"], **attributes),
    ]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input(batch=16)], ["y"]))
    (before,) = channel_errors(model, insert_qdq(model, minmax(model)).model, ["y"])
    result, count = corrected(model)
    assert count == 1
    assert channel_errors(model, result, ["y"])[0] < 0.01 * before


def test_a_bias_that_is_computed_is_left_as_it_is(tmp_path: Path) -> None:
    nodes = [
        node("GlobalMaxPool", ["x"], ["p"]),
        node("ReduceMean", ["p"], ["b"], axes=[0, 2, 3], keepdims=0),
        node("Conv", ["x", "w", "b"], ["y"], **PADS),
    ]
    weights = [weight("w", CHANNELS, CHANNELS, 3, 3)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    assert corrected(model)[1] == 0


def test_a_bias_that_two_layers_share_is_corrected_for_each(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w1", "b"], ["c"], **PADS),
        node("Conv", ["x", "w2", "b"], ["y"], **PADS),
    ]
    weights = [weight("w1", CHANNELS, CHANNELS, 3, 3), weight("w2", CHANNELS, CHANNELS, 3, 3), weight("b", CHANNELS)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["c", "y"]))
    before = channel_errors(model, insert_qdq(model, minmax(model)).model, ["c", "y"])
    result, count = corrected(model)
    assert count == 2
    assert "b" not in result.graph.initializers
    for one, other in zip(channel_errors(model, result, ["c", "y"]), before, strict=True):
        assert one < 0.01 * other


def transformer(path: Path, *tail: onnx.NodeProto) -> Model:
    """MatMul over the channels of x, and `tail`, from m to y: y [n, 8, 8, 24]."""
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node("MatMul", ["t", "w"], ["m" if tail else "y"]),
        *tail,
    ]
    weights = [weight("w", CHANNELS, 24), weight("b", 24), weight("s", 1, 1)]
    used = [one for one in weights if any(one.name in other.input for other in nodes)]
    return load_model(write(path, nodes, used, [image_input()], ["y"]))


TAILS = {
    "a bias": [node("Add", ["m", "b"], ["y"])],
    "a bias on the left": [node("Add", ["b", "m"], ["y"])],
    "one number for all channels": [node("Add", ["m", "s"], ["y"])],
    "an activation": [node("Relu", ["m"], ["y"])],
    "a bias for one of two readers": [node("Add", ["m", "b"], ["a"]), node("Mul", ["a", "m"], ["y"])],
    "nothing": [],
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_a_matmul_is_corrected_by_the_add_behind_it_or_a_new_one(tmp_path: Path, tail: list[onnx.NodeProto]) -> None:
    model = transformer(tmp_path / "m.onnx", *tail)
    quantized = insert_qdq(model, minmax(model)).model
    result, count = corrected(model)
    assert count == 1
    assert [one.name for one in result.graph.outputs] == ["y"]
    has_bias = len(tail) == 1 and tail[0].op_type == "Add"
    assert count_adds(result) == count_adds(quantized) + (not has_bias)
    plain, fixed = ("y", "y") if has_bias or not tail else ("m", "m.corrected")
    exact, before, after = (
        outputs_of(one, [name])[0] for one, name in ((model, plain), (quantized, plain), (result, fixed))
    )
    assert mean_error(exact, after, axis=-1) < 0.01 * mean_error(exact, before, axis=-1)


def count_adds(model: ir.Model) -> int:
    return sum(one.op_type == "Add" for one in model.graph)


MODELS = ["cnn", *TAILS]


def named(name: str, cnn: Model, folder: Path) -> Model:
    return cnn if name == "cnn" else transformer(folder / "m.onnx", *TAILS[name])


@pytest.mark.parametrize("name", MODELS)
def test_lint_finds_nothing_that_it_did_not_find_before(name: str, cnn: Model, tmp_path: Path) -> None:
    model = named(name, cnn, tmp_path)
    path = tmp_path / "int8.onnx"
    save_model(insert_qdq(model, minmax(model)).model, path)
    before = [one.rule for one in lint_model(path)]
    save_model(corrected(model)[0], path)
    assert [one.rule for one in lint_model(path)] == before


@pytest.mark.parametrize("name", MODELS)
def test_the_rest_can_be_halved(name: str, cnn: Model, tmp_path: Path) -> None:
    model = named(name, cnn, tmp_path)
    half = convert_to_float16(corrected(model)[0]).model
    assert emulate_float16(half)
    single, rounded = (outputs_of(one, ["y"])[0] for one in (corrected(model)[0], half))
    assert rounded == pytest.approx(single, abs=0.02 * np.abs(single).max())
    path = tmp_path / "half.onnx"
    save_model(convert_to_float16(corrected(model)[0]).model, path)
    onnx.checker.check_model(str(path), full_check=True)
    types = {one.name: one.data_type for one in onnx.load(path).graph.initializer}
    biases = [types[tensor] for tensor in types if tensor.endswith((".bias", ".corrected"))]
    assert biases
    assert set(biases) == {onnx.TensorProto.FLOAT16}


@pytest.mark.skipif(not find_spec("tensorrt_rtx"), reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
@pytest.mark.parametrize("name", MODELS)
def test_tensorrt_rtx_joins_new_biases_with_kernels_that_are_there_anyway(
    name: str, cnn: Model, tmp_path: Path
) -> None:
    """Proof: run (engines are really built; not executed). Their text, which is not documented, names each kernel."""
    model = named(name, cnn, tmp_path)
    plain, fixed = (
        kernels(convert_to_float16(one).model, tmp_path / "int8.onnx")
        for one in (insert_qdq(model, minmax(model)).model, corrected(model)[0])
    )
    assert fixed == plain > 0


def kernels(model: ir.Model, path: Path) -> int:
    save_model(model, path)
    profile = ShapeProfile(DATA.shape, DATA.shape, DATA.shape)
    identity = ModelIdentity("graph", "weights")
    build_rtx(EngineSpec(path, path.with_suffix(".engine"), "int8", identity, {"x": profile}))
    return len(
        re.findall(
            rb"\b(?:function|fully_connected|corrltn|deconvolution)=\{", path.with_suffix(".engine").read_bytes()
        )
    )
