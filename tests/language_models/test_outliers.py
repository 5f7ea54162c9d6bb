"""Outlier channels by layer, channel and token."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.networks import weight
from tests.transforms.normalized import WIDTH, constant, network, node, saved, tokens
from trt_ptq.data.sources import ArraySource
from trt_ptq.language_models.outliers import find_outliers
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.transforms.alpha_search import apply_smoothquant
from trt_ptq.types import Array

CHANNEL, POSITION = 5, 3


def scaled_block(path: Path) -> Model:
    nodes = [node("Mul", "x gamma", "h"), node("MatMul", "h wq", "q"), node("MatMul", "h wk", "y")]
    weights = [constant("gamma", np.ones(WIDTH)), weight("wq", WIDTH, 48), weight("wk", WIDTH, 48)]
    return load_model(network(path, nodes, weights, "y q"))


def data() -> Array:
    """Of the eighth sample, the token at POSITION has a massive activation."""
    values = tokens(8)
    values[7, POSITION, CHANNEL] = 500
    return values


def test_layer_channel_ratio_and_token_are_named(tmp_path: Path) -> None:
    values = data()
    (outlier,) = find_outliers(scaled_block(tmp_path / "m.onnx"), ArraySource("x", {"x": values}, 2))
    assert (outlier.tensor, outlier.layers) == ("h", ("q", "y"))
    assert (outlier.channel, outlier.position, outlier.amax) == (CHANNEL, POSITION, 500)
    assert outlier.ratio == 500 / np.median(np.abs(values).max(axis=(0, 1)))
    assert outlier.ratio_after is None


def test_smoothquant_makes_it_smaller(tmp_path: Path) -> None:
    model, source = scaled_block(tmp_path / "m.onnx"), ArraySource("x", {"x": data()}, 2)
    smooth = load_model(saved(apply_smoothquant(model, source), tmp_path / "smooth.onnx"))
    (outlier,) = find_outliers(model, source, smooth)
    assert outlier.ratio_after is not None
    assert outlier.ratio_after < 0.5 * outlier.ratio


def test_a_model_without_outliers_has_none(tmp_path: Path) -> None:
    assert find_outliers(scaled_block(tmp_path / "m.onnx"), ArraySource("x", {"x": tokens(8)}, 2)) == ()


def test_a_decoder_with_empty_caches_is_measured(decoder: Model) -> None:
    from trt_ptq.language_models.batches import DecoderBatches
    from trt_ptq.language_models.decoder import decoder_layout
    from trt_ptq.language_models.text.samples import TokenSample

    samples = [TokenSample(np.arange(10), "text")]
    source = DecoderBatches(decoder.path, decoder_layout(decoder), samples, decoder.path.parent)
    assert all(outlier.ratio >= 20 for outlier in find_outliers(decoder, source))
