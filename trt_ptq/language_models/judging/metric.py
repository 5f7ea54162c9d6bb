"""The metric of a language model: perplexity on held-out text, in the form of `evaluate`.

It yields the losses of tokens, one window at a time, so that a candidate that loses too much is given up after some of
the windows. The tokens of a window go together, so a window is one sample of the test that decides on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.evaluation.runners.onnx_runner import Run
from trt_ptq.language_models.decoder import DecoderLayout
from trt_ptq.language_models.judging.perplexity import TextWindow, perplexity_of, window_losses
from trt_ptq.types import Array

PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class LanguageModelMetric:
    """Scores the tokens of `select` while candidates are compared, and those of `test` for the verdict."""

    layout: DecoderLayout
    select: Sequence[TextWindow]
    test: Sequence[TextWindow]

    def __call__(self, run: Run, split: Literal["select", "test"]) -> Iterator[dict[str, Array]]:
        """The losses of the tokens of one window after the other, of the model that `run(feeds)` runs."""
        for losses in window_losses(run, self.layout, self.select if split == "select" else self.test):
            yield {PERPLEXITY: losses}

    def as_user_metric(self) -> UserMetric:
        """The perplexity, in the form of a metric of the user's."""
        digest = hashlib.sha256(repr(self.layout).encode())
        for window in (*self.select, *self.test):
            digest.update(f"{window.first_scored} {len(window.ids)} ".encode() + window.ids.tobytes())
        identity = f"{PERPLEXITY} {digest.hexdigest()}"
        return UserMetric(
            self, PERPLEXITY, of_mean={PERPLEXITY: perplexity_of}, in_groups=True, known_identity=identity
        )
