"""What the precisions of a language model predict beside FP32: agreement by position, and generations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from trt_ptq.engines.spec import Precision
from trt_ptq.evaluation.metrics import Metrics
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.runner import Runner
from trt_ptq.language_models.judging.agreement import PositionAgreement, next_token_agreement
from trt_ptq.language_models.judging.generation import generate
from trt_ptq.language_models.judging.metric import PERPLEXITY
from trt_ptq.language_models.language_data import LanguageData
from trt_ptq.types import Array, Batch, Feeds

_MAX_WINDOWS = 8
_FEW_TOKENS = 1000
_CHANCE = 0.5  # of the perplexity of guessing, which is the size of the vocabulary
_NUM_GENERATIONS, _GENERATED_TOKENS, _PROMPT_TOKENS = 2, 24, 32


@dataclass(frozen=True)
class Generation:
    """A prompt, and what each precision continues it with, greedily."""

    prompt: str
    continuations: dict[str, str]


@dataclass(frozen=True)
class LanguageJudgement:
    """How FP16 and INT8 predict text.

    Attributes:
        agreement: next-token agreement with FP32 by position, by precision.
        generations: continuations of the beginnings of held-out texts.
        texts: number of held-out texts that the perplexity of the verdict is of.
        tokens: number of their tokens that are scored.
    """

    agreement: dict[str, list[PositionAgreement]]
    generations: list[Generation]
    texts: int = 0
    tokens: int = 0


class LanguageJudge:
    """Looks at FP32 and then at the other precisions, while each is loaded, on the test windows.

    Args:
        reference: the FP32 model, which stores its outputs.
        data: the text.
    """

    def __init__(self, reference: Reference, data: LanguageData) -> None:
        self._reference = reference
        self._data = data
        self._windows = data.test[:: -(-len(data.test) // _MAX_WINDOWS)]
        self._prompts = [window.ids[:_PROMPT_TOKENS] for window in data.test[:_NUM_GENERATIONS]]
        self._agreement: dict[str, list[PositionAgreement]] = {}
        self._continued: dict[str, list[str]] = {}

    def look(self, precision: Precision, runner: Runner) -> None:
        """Compare the next-token predictions of a model with those of FP32, and let it continue some texts.

        Raises:
            ModelError, DataError: it cannot be run.
        """
        layout, tokenizer = self._data.layout, self._data.tokenizer

        def run(feeds: Feeds) -> dict[str, Array]:
            return runner.infer(feeds, runner.name)

        if precision == "fp32":
            self._reference.store_outputs(
                (self._batch(layout.feeds(window.ids[None])) for window in self._windows), runner
            )
        else:
            with self._reference.outputs() as outputs:
                agreement = next_token_agreement(lambda feeds: outputs(self._batch(feeds)), run, layout, self._windows)
            self._agreement[precision] = agreement
        write = partial(generate, run, layout, max_tokens=_GENERATED_TOKENS, end_id=tokenizer.end_id)
        self._continued[precision] = [tokenizer.decode(write(prompt)) for prompt in self._prompts]

    def judgement(self) -> LanguageJudgement:
        """What was seen."""
        generations = [
            Generation(
                self._data.tokenizer.decode(prompt), {name: texts[index] for name, texts in self._continued.items()}
            )
            for index, prompt in enumerate(self._prompts)
        ]
        return LanguageJudgement(self._agreement, generations, len(self._data.test), _num_scored(self._data))

    @staticmethod
    def _batch(feeds: Feeds) -> Batch:
        return Batch(feeds, "the test text")


def perplexity_warnings(metrics: Mapping[Precision, Metrics], data: LanguageData) -> list[str]:
    """Warn of an FP32 model that predicts no better than chance, and of a perplexity of few tokens."""
    warnings = []
    scored = _num_scored(data)
    if scored < _FEW_TOKENS:
        warnings.append(f"the perplexity is that of only {scored} tokens: give more `test_data`")
    measured, vocabulary = metrics.get("fp32", {}).get(PERPLEXITY), data.layout.vocabulary
    if measured is not None and vocabulary is not None and measured > _CHANCE * vocabulary:
        warnings.append(
            f"the perplexity of FP32 is {measured:.4g}, hardly better than guessing among {vocabulary} tokens: is the "
            "text random, or the tokenizer that of another model?"
        )
    return warnings


def _num_scored(data: LanguageData) -> int:
    return sum(window.num_scored for window in data.test)
