"""How far pairs are smoothed, and that INT8 gains by it (run by ONNX Runtime)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.networks import weight
from tests.transforms.normalized import WIDTH, constant, layer_norm, network, node, outputs, saved, tokens
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import MinMax
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_mapped, save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.transforms.alpha_search import ALPHAS, apply_smoothquant
from trt_ptq.types import Array


def source(array: Array) -> ArraySource:
    return ArraySource("x.npz", {"x": array}, 4)


def outlying(path: Path) -> Path:
    """A normalization of which one channel is 100 times larger than the others, as in language models."""
    scale = np.ones(WIDTH)
    scale[5] = 100
    nodes = [node("LayerNormalization", "x gamma", "h"), node("MatMul", "h w", "y")]
    return network(path, nodes, [constant("gamma", scale), weight("w", WIDTH, 48)])


def int8_error(path: Path, reference: Path, calibration: Array, x: Array) -> float:
    """Error of the INT8 model of `path` against `reference` on data `x` that nothing was measured on."""
    model = load_model(path)
    table = derive_table(collect_statistics(model, source(calibration), select_calibration_tensors(model)), MinMax())
    quantized = path.with_name("int8.onnx")
    save_model(insert_qdq(model, table).model, quantized)
    exact = outputs(reference, x=x)[0]
    return float(np.linalg.norm(outputs(quantized, x=x)[0] - exact) / np.linalg.norm(exact))


def test_a_channel_of_outliers_costs_less_in_int8(tmp_path: Path) -> None:
    path = outlying(tmp_path / "m.onnx")
    smoothed = saved(apply_smoothquant(load_model(path), source(tokens(16))), tmp_path / "smooth.onnx")
    data = tokens(16), tokens(16, seed=1)
    assert int8_error(smoothed, path, *data) < 0.7 * int8_error(path, path, *data)


def test_an_alpha_whose_range_clips_unseen_data_is_not_selected(tmp_path: Path) -> None:
    """A few tokens with tails as heavy as those of a gated MLP do not show the largest values."""
    heavy, unseen = np.random.default_rng(0).standard_t(3, (2, 16, 8, WIDTH)).astype(np.float32)
    nodes = [node("Mul", "x gamma", "h"), node("MatMul", "h w", "y")]
    path = network(tmp_path / "m.onnx", nodes, [constant("gamma", np.ones(WIDTH)), weight("w", WIDTH, 48)])
    halves = apply_smoothquant(load_model(path), ArraySource("x.npz", {"x": heavy}, 4))
    whole = apply_smoothquant(load_model(path), ArraySource("x.npz", {"x": heavy}, 16))
    assert [site.note[:9] for site in whole.applied] == ["alpha 0.9"]
    assert not halves.applied
    clipped = saved(whole, tmp_path / "clipped.onnx")
    assert int8_error(path, path, heavy, unseen) < int8_error(clipped, path, heavy, unseen)


def test_the_note_has_alpha_and_what_it_brought(tmp_path: Path) -> None:
    transformed = apply_smoothquant(load_model(outlying(tmp_path / "m.onnx")), source(tokens(16)))
    assert [one.tensor for one in transformed.applied] == ["h"]
    assert not transformed.skipped
    found = re.fullmatch(r"alpha (0\.\d+), output error ([\d.]+)% -> ([\d.]+)%", transformed.applied[0].note)
    assert found
    assert float(found[1]) in ALPHAS
    assert float(found[3]) < float(found[2])


def test_the_smoothed_model_computes_the_same(tmp_path: Path) -> None:
    path = outlying(tmp_path / "m.onnx")
    smoothed = saved(apply_smoothquant(load_model(path), source(tokens(16))), tmp_path / "smooth.onnx")
    x = tokens()
    np.testing.assert_allclose(outputs(smoothed, x=x)[0], outputs(path, x=x)[0], rtol=1e-4, atol=1e-3)


def test_weights_in_a_mapped_file_give_the_same(tmp_path: Path) -> None:
    nodes = [node("Mul", "x gamma", "h"), node("MatMul", "h w", "m"), node("MatMul", "m v", "y")]
    scale = np.ones(WIDTH)
    scale[5] = 100
    weights = [constant("gamma", scale), weight("w", WIDTH, 4096), weight("v", 4096, 48)]
    path = network(tmp_path / "m.onnx", nodes, weights)
    save_mapped(load_model(path).to_ir(), tmp_path / "mapped.onnx")
    data = source(tokens(16))
    first, second = (apply_smoothquant(load_model(file), data) for file in (path, tmp_path / "mapped.onnx"))
    assert saved(first, tmp_path / "1").read_bytes() == saved(second, tmp_path / "2").read_bytes()


def test_a_pair_that_loses_nothing_is_left_alone(tmp_path: Path) -> None:
    """Data of 1 and -1, and weights of the same size: int8 holds both as they are."""
    signs = np.where(np.random.default_rng(0).random((WIDTH, 48)) < 0.5, -1, 1)
    nodes = [node("Mul", "x gamma", "h"), node("MatMul", "h w", "y")]
    path = network(tmp_path / "m.onnx", nodes, [constant("gamma", np.ones(WIDTH)), constant("w", signs)])
    transformed = apply_smoothquant(load_model(path), source(np.sign(tokens(8))))
    assert not transformed.applied
    assert [str(one) for one in transformed.skipped] == ["'h': no alpha lowers the output error, 0.00%"]
    x = tokens()
    unchanged = saved(transformed, tmp_path / "same.onnx")
    np.testing.assert_array_equal(outputs(unchanged, x=x)[0], outputs(path, x=x)[0])


def test_channels_without_data_or_weights_are_not_scaled(tmp_path: Path) -> None:
    scale, rows = np.ones(WIDTH), np.random.default_rng(0).normal(0, 1, (WIDTH, 48))
    scale[5], scale[0], rows[1] = 100, 0, 0
    nodes = [node("LayerNormalization", "x gamma", "h"), node("MatMul", "h w", "y")]
    path = network(tmp_path / "m.onnx", nodes, [constant("gamma", scale), constant("w", rows)])
    transformed = apply_smoothquant(load_model(path), source(tokens(16)))
    gamma = transformed.model.graph.initializers["gamma"].const_value
    assert gamma is not None
    assert list(gamma.numpy()[:2]) == [0, 1]
    x = tokens()
    smoothed = saved(transformed, tmp_path / "smooth.onnx")
    np.testing.assert_allclose(outputs(smoothed, x=x)[0], outputs(path, x=x)[0], rtol=1e-4, atol=1e-3)


def test_a_model_without_normalizations_is_left_as_it_is(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", [node("MatMul", "x w", "y")], [weight("w", WIDTH, 48)])
    transformed = apply_smoothquant(load_model(path), source(tokens()))
    assert transformed.applied == transformed.skipped == ()


def test_infinite_values_are_named(tmp_path: Path) -> None:
    nodes = [node("Exp", "x", "e"), node("Mul", "e gamma", "h"), node("MatMul", "h w", "y")]
    path = network(tmp_path / "m.onnx", nodes, [constant("gamma", np.arange(1, WIDTH + 1)), weight("w", WIDTH, 48)])
    transformed = apply_smoothquant(load_model(path), source(np.full((1, 8, WIDTH), 200, np.float32)))
    assert [str(one) for one in transformed.skipped] == ["'h': it has NaN or infinite values"]


def test_the_scales_cover_a_massive_activation_of_one_token(tmp_path: Path) -> None:
    """As at the first token of language models: few rows have it, but clipping it would ruin what attends to them."""
    data = tokens(16)
    data[0, 0, 3] = 3000
    path = network(
        tmp_path / "m.onnx",
        [node("Mul", "x gamma", "h"), node("MatMul", "h w", "y")],
        [constant("gamma", np.ones(WIDTH)), weight("w", WIDTH, 48)],
    )
    transformed = apply_smoothquant(load_model(path), source(data))
    divided = transformed.model.graph.initializers["gamma"].const_value
    assert divided is not None
    assert divided.numpy()[3] < 0.1 * np.median(divided.numpy())


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no batch"):
        apply_smoothquant(load_model(layer_norm(tmp_path / "m.onnx")), source(tokens(0)))
