"""How far the next-token distributions of a candidate are from those of the float model, on a few short texts.

Tuning asks this of many candidates, so the texts are short: the first tokens of a few calibration samples, with an
empty cache. That covers the first token, where many models have massive activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trt_ptq.data.sources import InMemorySource
from trt_ptq.data.subset import evenly_spaced
from trt_ptq.evaluation.runners.onnx_runner import CANDIDATE, onnx_runner, temporary_model_file
from trt_ptq.language_models.decoder import ATTENTION_MASK, LOGITS, PAST_AXIS, num_past_tokens
from trt_ptq.language_models.judging.perplexity import ROWS, log_normalizers
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Array, Batch, BatchSource

_TEXT_TOKENS = 128
_BATCHES_PER_TEXT = 3  # that are read for each text: some are decode steps


def short_texts(source: BatchSource, count: int) -> BatchSource:
    """The start of one sample of `count` batches, spread over `source`: up to 128 tokens, with an empty cache.

    Batches that continue a cache (decode steps) are left out, unless there are no others.
    """
    batches = list(evenly_spaced(source, _BATCHES_PER_TEXT * count))
    prefills = [batch for batch in batches if not num_past_tokens(batch.feeds)] or batches
    chosen = prefills[:: max(len(prefills) // count, 1)][:count]
    return InMemorySource([_start(batch) for batch in chosen])


@dataclass(frozen=True)
class NextTokenDivergence:
    """Measures the mean KL divergence of candidates.

    Attributes:
        reference: the float model.
        calibration: the calibration data.
        batches: number of texts to measure on, spread over the data.
    """

    reference: Model
    calibration: BatchSource
    batches: int

    @cached_property
    def _source(self) -> BatchSource:
        return short_texts(self.calibration, self.batches)

    @cached_property
    def _expected(self) -> list[Array]:
        return self._logits(self.reference.path)

    def measure(self, candidate: ir.Model) -> float:
        """Measure mean KL(float model || candidate) over all positions, in nats; infinite if a logit is NaN.

        Raises:
            DataError, ModelError: the candidate cannot be run.
        """
        with temporary_model_file(candidate, CANDIDATE) as path:
            actual = self._logits(path)
        sums = [kl_divergence(*pair).sum() for pair in zip(self._expected, actual, strict=True)]
        mean = float(sum(sums) / sum(expected[..., 0].size for expected in self._expected))
        return mean if np.isfinite(mean) else float("inf")

    def _logits(self, path: Path) -> list[Array]:
        with onnx_runner(path) as runner:
            return [runner.infer(batch.feeds, batch.origin)[LOGITS] for batch in self._source]


def kl_divergence(expected: Array, actual: Array) -> Array:
    """KL(expected || actual) of next-token distributions, in nats, float64 [positions].

    Args:
        expected: logits [..., vocabulary] of the reference.
        actual: logits of the same shape.
    """
    vocabulary = expected.shape[-1]
    first, second = expected.reshape(-1, vocabulary), actual.reshape(-1, vocabulary)
    divergence = np.empty(len(first))
    for start in range(0, len(first), ROWS):
        part = slice(start, start + ROWS)
        (reference, normalizer), (candidate, other) = log_normalizers(first[part]), log_normalizers(second[part])
        difference = np.subtract(reference, candidate, out=candidate)
        weighted = np.multiply(np.exp(reference, out=reference), difference, out=difference)
        divergence[part] = weighted.sum(axis=1, dtype=np.float64) / np.exp(normalizer) - normalizer + other
    return divergence


def _start(batch: Batch) -> Batch:
    """The first tokens of the first sample of a batch, copied."""
    lengths = {ATTENTION_MASK: num_past_tokens(batch.feeds) + _TEXT_TOKENS}

    def start(name: str, array: Array) -> Array:
        if array.ndim != 2:  # a cache tensor; or, without axes of samples and tokens, an option of the model
            return array[:1] if array.ndim > PAST_AXIS else array
        return array[:1, : lengths.get(name, _TEXT_TOKENS)]

    feeds = {name: np.array(start(name, array)) for name, array in batch.feeds.items()}
    return Batch(feeds, batch.origin)
