"""Outlier channels are split into copies: what the model computes stays, and INT8 gains by it (run by ONNX Runtime)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.networks import weight
from tests.transforms.normalized import WIDTH, constant, gamma, network, node, outputs, saved, tokens
from tests.transforms.smoothed import assert_same_function, initializer, value_of
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import MinMax
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.data.sources import ArraySource
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.transforms import alpha_search
from trt_ptq.transforms.alpha_search import apply_smoothquant
from trt_ptq.transforms.channel_splitting import Copies, channel_origin, smallest_range, split_channels
from trt_ptq.transforms.smoothquant import find_pairs
from trt_ptq.types import Array

INNER = 640  # channels, of which 5 % are 32
GATED = [
    node("MatMul", "x gate", "g"),
    node("Sigmoid", "g", "s"),
    node("Mul", "g s", "silu"),
    node("MatMul", "x up", "u"),
    node("Mul", "silu u", "h"),
    node("MatMul", "h down", "y"),
]
COPIES = Copies(np.array([3, 1, 2, *[1] * (INNER - 3)]))


def gated_weights() -> list[onnx.TensorProto]:
    """Channel 3 of the input makes channel 7 of the MLP, and nothing else."""
    rng = np.random.default_rng(0)
    layers = {name: rng.normal(0, 0.2, (WIDTH, INNER)) for name in ("gate", "up")}
    for layer in layers.values():
        layer[3] = np.where(np.arange(INNER) == 7, 2, 0)
    return [*(constant(name, layer) for name, layer in layers.items()), weight("down", INNER, WIDTH)]


def gated(path: Path) -> Path:
    """The MLP of LLaMA."""
    return network(path, GATED, gated_weights())


def texts(seed: int, first_token: float) -> Array:
    """Texts of 8 tokens, whose first ones are as large in channel 3."""
    x = tokens(256, seed=seed)
    x[:, :, 3] = 0
    x[:, 0, 3] = first_token
    return x


def is_split(path: Path) -> bool:
    """Split the channels of the last pair, if they can be; the result is "split.onnx"."""
    model = load_model(path).to_ir()
    pair = find_pairs(model.graph)[0][-1]
    origin = channel_origin(pair)
    if origin is not None:
        split_channels(model.graph, pair, origin, COPIES)
    save_model(model, path.with_name("split.onnx"))
    return origin is not None


def test_the_split_model_computes_the_same(tmp_path: Path) -> None:
    path = gated(tmp_path / "m.onnx")
    assert is_split(path)
    assert_same_function(path, tmp_path / "split.onnx")


def test_each_copy_has_its_part_of_the_channel_and_all_of_its_weights(tmp_path: Path) -> None:
    path = gated(tmp_path / "m.onnx")
    assert is_split(path)
    split, x = tmp_path / "split.onnx", tokens()
    before, after = value_of(path, "h", x), value_of(split, "h", x)
    np.testing.assert_allclose(after[..., [0, INNER, INNER + 1]], before[..., [0, 0, 0]] / 3, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[..., [2, INNER + 2]], before[..., [2, 2]] / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(initializer(split, "down")[[INNER, INNER + 2]], initializer(path, "down")[[0, 2]])
    shapes = {name: initializer(split, name).shape for name in ("gate", "up", "down")}
    assert shapes == {"gate": (WIDTH, 643), "up": (WIDTH, 643), "down": (643, WIDTH)}


def test_biases_and_transposed_weights_are_copied_too(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", "x w b", "m", transB=1),
        node("Relu", "m", "r"),
        node("Mul", "r scale", "h"),
        node("Gemm", "h down", "y", transB=1),
    ]
    weights = [weight("w", INNER, WIDTH), weight("b", INNER), constant("scale", np.linspace(1, 2, INNER))]
    path = network(tmp_path / "m.onnx", nodes, [*weights, weight("down", WIDTH, INNER)], rank=2)
    assert is_split(path)
    assert_same_function(path, tmp_path / "split.onnx", rank=2)
    assert initializer(tmp_path / "split.onnx", "down").shape == (WIDTH, 643)


def test_a_weight_behind_a_transpose_is_copied_along_its_other_axis(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "m"),
        node("Relu", "m", "h"),
        node("Transpose", "down", "view", perm=[1, 0]),
        node("MatMul", "h view", "y"),
    ]
    weights = [weight("w", WIDTH, INNER), weight("down", WIDTH, INNER)]
    path = network(tmp_path / "m.onnx", nodes, weights)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    assert is_split(path)
    assert_same_function(path, tmp_path / "split.onnx")
    onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "split.onnx"), strict_mode=True)


def test_a_bias_that_another_layer_reads_is_copied_for_the_split(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "a"),
        node("Relu", "a", "h"),
        node("MatMul", "h down", "y"),
        node("MatMul", "x other", "o"),
        node("Add", "o b", "z"),
    ]
    weights = [weight("w", WIDTH, INNER), weight("b", INNER), weight("other", WIDTH, INNER)]
    path = network(tmp_path / "m.onnx", nodes, [*weights, weight("down", INNER, WIDTH)], "y z")
    assert is_split(path)
    assert_same_function(path, tmp_path / "split.onnx")


def normalized() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes = [node("LayerNormalization", "x gamma", "h"), node("MatMul", "h w", "y")]
    return nodes, [gamma(), weight("w", WIDTH, 48)]


@pytest.mark.parametrize(
    ("nodes", "weights", "names"),
    [
        pytest.param(*normalized(), "y", id="a normalization writes it"),
        pytest.param([*GATED, node("Neg", "h", "z")], gated_weights(), "y z", id="it is read elsewhere"),
        pytest.param([*GATED, node("Neg", "s", "z")], gated_weights(), "y z", id="what it is made of is read"),
        pytest.param(GATED, gated_weights(), "y s", id="what it is made of is an output"),
        pytest.param(
            [*GATED, node("MatMul", "x gate", "z")], gated_weights(), "y z", id="another layer reads a weight"
        ),
        pytest.param(
            [
                node("MatMul", "x up", "u"),
                node("MatMul", "u square", "g"),
                node("Relu", "g", "r"),
                node("Mul", "u r", "h"),
                node("MatMul", "h down", "y"),
            ],
            [weight("up", WIDTH, INNER), weight("square", INNER, INNER), weight("down", INNER, WIDTH)],
            "y",
            id="a layer reads what it is made of",
        ),
    ],
)
def test_what_cannot_be_copied_is_left(
    tmp_path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], names: str
) -> None:
    path = network(tmp_path / "m.onnx", nodes, weights, names)
    assert not is_split(path)


def test_copies_go_where_the_range_is_largest() -> None:
    copies = smallest_range(np.array([1, 12, 5], np.float32), 4)
    assert copies.counts.tolist() == [1, 4, 2]
    assert copies.channels.tolist() == [0, 1, 2, 1, 1, 1, 2]
    assert copies.divisors.tolist() == [1, 4, 2, 4, 4, 4, 2]


@given(
    amax=arrays(np.float32, 5, elements=st.floats(0, 2**10, width=32)),
    num_added=st.integers(0, 20),
    data=st.data(),
)
def test_no_other_copies_have_a_smaller_range(amax: Array, num_added: int, data: st.DataObject) -> None:
    best = smallest_range(amax, num_added).counts
    assert best.sum() == len(amax) + num_added
    added = [data.draw(st.integers(0, len(amax) - 1)) for _ in range(num_added)]
    other = 1 + np.bincount(np.array(added, np.intp), minlength=len(amax))
    assert (amax / best).max() <= (amax / other).max() * (1 + 1e-6)


def calibration(first_token: float) -> ArraySource:
    return ArraySource("x.npz", {"x": texts(0, first_token)}, 64)


def int8_error(path: Path, reference: Path) -> float:
    """Error of the last layer in INT8 on text that nothing was measured on, relative to it; without first tokens."""
    model = load_model(path)
    table = derive_table(collect_statistics(model, calibration(15), select_calibration_tensors(model)), MinMax())
    quantized = path.with_name("int8.onnx")
    save_model(insert_qdq(model, table, ["g", "u"]).model, quantized)
    x = texts(1, 15)
    exact, int8 = (outputs(file, x=x)[0][:, 1:] for file in (reference, quantized))
    return float(np.linalg.norm(int8 - exact) / np.linalg.norm(exact))


def test_a_massive_activation_costs_less_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gated(tmp_path / "m.onnx")
    split = apply_smoothquant(load_model(path), calibration(15))
    assert [site.tensor for site in split.applied] == ["h"]
    assert split.applied[0].note.startswith("32 channels added, alpha ")
    assert {"g", "s", "silu", "u", "h"} <= split.changed
    error = int8_error(saved(split, tmp_path / "split.onnx"), path)
    monkeypatch.setattr(alpha_search, "MAX_ADDED", 0)
    smoothed = apply_smoothquant(load_model(path), calibration(15))
    assert error < 0.7 * int8_error(saved(smoothed, tmp_path / "smooth.onnx"), path)


def test_without_outliers_no_channel_is_added(tmp_path: Path) -> None:
    transformed = apply_smoothquant(load_model(gated(tmp_path / "m.onnx")), calibration(0))
    assert initializer(saved(transformed, tmp_path / "smooth.onnx"), "up").shape == (WIDTH, INNER)
