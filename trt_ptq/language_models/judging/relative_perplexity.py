"""How far a language model is from FP32 where there is no text to judge it by: only batches of inputs.

Text that FP32 itself would write has the perplexity exp(entropy) to FP32, and exp(entropy + KL divergence) to another
model. Their ratio, exp(mean KL divergence), is what quantization costs in perplexity, whatever the data: random tokens
will do. Agreement on the most likely token says less: the first of 50,000 tokens changes where several are as likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trt_ptq.errors import DataError
from trt_ptq.evaluation.metric_direction import Lower
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.onnx_runner import Run
from trt_ptq.language_models.decoder import ATTENTION_MASK, INPUT_IDS, LOGITS
from trt_ptq.language_models.judging.next_token import kl_divergence
from trt_ptq.language_models.judging.perplexity import perplexity_of
from trt_ptq.types import Array, BatchSource, Feeds

RELATIVE_PERPLEXITY = "perplexity relative to FP32"


@dataclass(frozen=True)
class RelativePerplexity:
    """Computes exp(mean KL(FP32 || model)) over the tokens that no mask leaves out.

    Attributes:
        reference: the FP32 model.
        select: batches that candidates are compared on.
        test: batches for the verdict.
    """

    reference: Reference
    select: BatchSource
    test: BatchSource

    def __call__(self, run: Run, split: Literal["select", "test"]) -> dict[str, Lower]:
        """The perplexity of the model that `run(feeds)` runs, relative to that of FP32."""
        total, count = 0.0, 0
        with self.reference.outputs() as outputs:
            for batch in self.select if split == "select" else self.test:
                expected, actual = outputs(batch)[LOGITS], run(batch.feeds)[LOGITS]
                kept = _unmasked(batch.feeds, expected)
                total += float(kl_divergence(expected[kept], actual[kept]).sum())
                count += int(kept.sum())
        if not count:
            raise DataError("the data has no token that its attention mask keeps")
        return {RELATIVE_PERPLEXITY: Lower(perplexity_of(total / count))}

    def as_user_metric(self) -> UserMetric:
        """The same in the form of a metric of the user's."""
        return UserMetric(self, RELATIVE_PERPLEXITY, known_identity=RELATIVE_PERPLEXITY)


def _unmasked(feeds: Feeds, logits: Array) -> Array:
    """The positions of `logits` that a mask keeps: bool, of the shape of `logits` without the vocabulary."""
    mask, length = feeds.get(ATTENTION_MASK), feeds[INPUT_IDS].shape[1]
    if mask is None or mask.ndim != 2 or logits.shape[1:-1] != (length,):
        return np.ones(logits.shape[:-1], bool)
    return np.asarray(mask[:, -length:] != 0)
