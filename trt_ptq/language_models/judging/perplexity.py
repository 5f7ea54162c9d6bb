"""Perplexity over windows of text.

Protocol: each text is cut into windows of `window` tokens that start `stride` tokens apart. Each window runs alone,
with an empty cache. Every token is scored at most once, by the first window that predicts it: from all tokens before
it in that window, so with a context of at least `window - stride` tokens (fewer in the first window). The first token
of a text, mostly a begin-of-text token, is only context; where windows do not overlap (the default), so is the first of
each. Perplexity = exp(mean negative log-likelihood of all scored tokens).

Source: https://huggingface.co/docs/transformers/perplexity (strided sliding window).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trt_ptq.errors import DataError
from trt_ptq.evaluation.runners.onnx_runner import Run
from trt_ptq.language_models.decoder import LOGITS, DecoderLayout
from trt_ptq.types import Array

ROWS = 8  # positions computed at a time: vocabularies have up to 260,000 tokens


@dataclass(frozen=True)
class TextWindow:
    """Tokens [length] that run together; those from index `first_scored` on (1 or more) are scored."""

    ids: Array
    first_scored: int = 1

    @property
    def num_scored(self) -> int:
        """Number of tokens that are scored."""
        return len(self.ids) - self.first_scored


def text_windows(texts: Iterable[Array], window: int, stride: int | None = None) -> list[TextWindow]:
    """Cut texts (token arrays [length]) into windows, by the protocol above.

    Args:
        texts: the tokens of each text; a text of one token has nothing to score.
        window: number of tokens of a window, 2 or more.
        stride: distance of windows, from 1 to `window`, which is the default: windows do not overlap.
    """
    stride = stride or window
    assert 1 <= stride <= window
    windows = []
    for ids in texts:
        scored = 1
        for start in range(0, len(ids), stride):
            stop = min(start + window, len(ids))
            first_scored = max(scored - start, 1)
            if stop > start + first_scored:
                windows.append(TextWindow(ids[start:stop], first_scored))
            scored = max(scored, stop)
    return windows


def perplexity(run: Run, layout: DecoderLayout, windows: Sequence[TextWindow]) -> float:
    """The perplexity of a model, which `run(feeds)` runs, over `windows`.

    Raises:
        DataError: no token is scored.
    """
    losses = [*window_losses(run, layout, windows)]
    if not losses:
        raise DataError("perplexity needs texts of at least two tokens, and there are none")
    return perplexity_of(float(np.concatenate(losses).mean()))


def perplexity_of(mean_loss: float) -> float:
    """The perplexity, from the mean loss of tokens in nats."""
    return math.exp(min(mean_loss, 700.0))  # the largest exponent of a float64 is 709


def window_losses(run: Run, layout: DecoderLayout, windows: Iterable[TextWindow]) -> Iterator[Array]:
    """The negative log-likelihoods of the tokens of each window that are scored, in nats, float64 [tokens]."""
    for window, logits in window_logits(run, layout, windows):
        first = window.first_scored
        yield token_losses(logits[first - 1 : -1], window.ids[first:])


def window_logits(run: Run, layout: DecoderLayout, windows: Iterable[TextWindow]) -> Iterator[tuple[TextWindow, Array]]:
    """Each window with its logits [length, vocabulary], which are valid for the next token of each position."""
    for window in windows:
        yield window, run(layout.feeds(window.ids[None]))[LOGITS][0]


def token_losses(logits: Array, ids: Array) -> Array:
    """The negative log-likelihood of each token, in nats, float64 [tokens].

    Args:
        logits: [tokens, vocabulary].
        ids: the true tokens [tokens].
    """
    losses = np.empty(len(ids))
    for start in range(0, len(ids), ROWS):
        shifted, logarithms = log_normalizers(logits[start : start + ROWS])
        part = ids[start : start + ROWS, None]
        losses[start : start + ROWS] = logarithms - np.take_along_axis(shifted, part, axis=1)[:, 0]
    return losses


def log_normalizers(logits: Array) -> tuple[Array, Array]:
    """Log-softmax in two parts: float32 logits without their largest one, minus float64 [rows].

    Exponentials in float32 are accurate to 1e-7, and three times as fast; their sum is in float64.

    Args:
        logits: [rows, vocabulary]; up to `ROWS` rows stay in the processor's cache.
    """
    values = logits.astype(np.float32, copy=False)
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted, np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
