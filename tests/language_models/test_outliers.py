"""Outlier channels by layer, channel and token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.networks import weight
from tests.transforms.normalized import WIDTH, constant, network, node, saved, tokens
from trt_ptq.data.sources import ArraySource, InMemorySource
from trt_ptq.language_models import outliers
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout, num_past_tokens
from trt_ptq.language_models.outliers import find_outliers
from trt_ptq.language_models.text.samples import TokenSample
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


def test_the_token_of_a_decode_step_is_that_of_the_text(
    decoder: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outliers, "MIN_RATIO", 1.5)  # its random weights have no real outliers
    samples = [TokenSample(np.arange(10), "text")]
    batches = list(DecoderBatches(decoder.path, decoder_layout(decoder), samples, tmp_path))
    assert [num_past_tokens(batch.feeds) for batch in batches] == [0, 5, 9]
    found = find_outliers(decoder, InMemorySource(batches[2:]))
    assert found
    assert {outlier.position for outlier in found} == {9}
    assert len({outlier.position for outlier in find_outliers(decoder, InMemorySource(batches))}) > 1
