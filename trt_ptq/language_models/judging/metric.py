"""The metric of a language model: perplexity on held-out text, in the form of `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trt_ptq.evaluation.metric_direction import Lower
from trt_ptq.evaluation.runners.onnx_runner import Run
from trt_ptq.language_models.decoder import DecoderLayout
from trt_ptq.language_models.judging.perplexity import TextWindow, perplexity

PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class LanguageModelMetric:
    """Computes {"perplexity": …} of a model: on `select` while candidates are compared, on `test` for the verdict."""

    layout: DecoderLayout
    select: Sequence[TextWindow]
    test: Sequence[TextWindow]

    def __call__(self, run: Run, split: Literal["select", "test"]) -> dict[str, Lower]:
        """The perplexity of the model that `run(feeds)` runs."""
        return {PERPLEXITY: Lower(perplexity(run, self.layout, self.select if split == "select" else self.test))}
