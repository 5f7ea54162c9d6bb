"""A language model without text: judged by how far its next-token distributions are from those of FP32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.decoders import VOCABULARY
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.sources import InMemorySource
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.language_models.decoder import DecoderLayout, decoder_layout
from trt_ptq.language_models.judging.next_token import kl_divergence
from trt_ptq.language_models.judging.relative_perplexity import RELATIVE_PERPLEXITY, RelativePerplexity
from trt_ptq.onnx_io.load import Model
from trt_ptq.pipeline import quantize
from trt_ptq.report.warnings import JUDGED_BY_FP32
from trt_ptq.types import Array, Batch, Feeds


@pytest.fixture
def layout(decoder: Model) -> DecoderLayout:
    return decoder_layout(decoder)


def padded(layout: DecoderLayout, seed: int) -> Feeds:
    """Two texts of 12 tokens, the second of which is padded in front by 5."""
    feeds = layout.feeds(np.random.default_rng(seed).integers(0, VOCABULARY, (2, 12)))
    feeds["attention_mask"][1, :5] = 0
    return feeds


def test_it_is_the_divergence_over_tokens_that_are_not_masked(decoder: Model, layout: DecoderLayout) -> None:
    batches = InMemorySource([Batch(padded(layout, seed), f"batch {seed}") for seed in (1, 2)])
    metric = RelativePerplexity(Reference(decoder.path), batches, InMemorySource([]))
    noise = np.random.default_rng(0)
    divergences: list[Array] = []
    with onnx_runner(decoder.path) as runner:
        assert metric(lambda feeds: runner.infer(feeds, "test"), "select") == {RELATIVE_PERPLEXITY: 1.0}

        def noisy(feeds: Feeds) -> dict[str, Array]:
            exact = runner.infer(feeds, "test")["logits"]
            logits = exact + noise.normal(0, 1, exact.shape).astype(np.float32)
            divergences.extend(kl_divergence(exact[row, 5 * row :], logits[row, 5 * row :]) for row in (0, 1))
            return {"logits": logits}

        measured = metric(noisy, "select")[RELATIVE_PERPLEXITY]
    assert measured == pytest.approx(np.exp(np.concatenate(divergences).mean()))
    assert measured > 1.1


def test_batches_without_text_are_judged_by_it(decoder_path: Path, layout: DecoderLayout, tmp_path: Path) -> None:
    batches = [padded(layout, seed) for seed in range(10)]
    config = QuantizeConfig(method="minmax", backend="none", techniques=(), search=False)
    result = quantize(decoder_path, batches, output_dir=tmp_path, config=config)
    assert set(result.metrics["int8"]) == {RELATIVE_PERPLEXITY}
    assert result.metrics["fp32"][RELATIVE_PERPLEXITY] == 1.0
    assert result.report.verdict.loss == pytest.approx(result.metrics["int8"][RELATIVE_PERPLEXITY] - 1)
    assert JUDGED_BY_FP32 in result.report.warnings
