"""What the precisions of a language model predict beside FP32: agreement by position, and generations."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trt_ptq.engines.spec import Precision
from trt_ptq.evaluation.metrics import Metrics
from trt_ptq.evaluation.runners.onnx_runner import Run, onnx_runner
from trt_ptq.language_models.judging.agreement import PositionAgreement, next_token_agreement
from trt_ptq.language_models.judging.generation import generate
from trt_ptq.language_models.judging.metric import PERPLEXITY
from trt_ptq.language_models.language_data import LanguageData

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
    """

    agreement: dict[str, list[PositionAgreement]]
    generations: list[Generation]


def judge_language_model(files: Mapping[Precision, Path], data: LanguageData) -> LanguageJudgement:
    """Compare the next-token predictions of the models in `files` with those of "fp32", on the test windows.

    Raises:
        ModelError, DataError: a model cannot be loaded or run.
    """
    windows = data.test[:: -(-len(data.test) // _MAX_WINDOWS)]
    prompts = [window.ids[:_PROMPT_TOKENS] for window in data.test[:_NUM_GENERATIONS]]
    agreement: dict[str, list[PositionAgreement]] = {}
    continued: dict[str, list[str]] = {}
    with ExitStack() as stack:
        reference = _run(stack, files["fp32"])
        for precision, path in files.items():
            with ExitStack() as candidate_stack:
                run = reference if precision == "fp32" else _run(candidate_stack, path)
                if precision != "fp32":
                    agreement[precision] = next_token_agreement(reference, run, data.layout, windows)
                write = partial(generate, run, data.layout, max_tokens=_GENERATED_TOKENS, end_id=data.tokenizer.end_id)
                continued[precision] = [data.tokenizer.decode(write(prompt)) for prompt in prompts]
    return LanguageJudgement(
        agreement,
        [
            Generation(data.tokenizer.decode(prompt), {name: texts[index] for name, texts in continued.items()})
            for index, prompt in enumerate(prompts)
        ],
    )


def perplexity_warnings(metrics: Mapping[Precision, Metrics], data: LanguageData) -> list[str]:
    """Warn of an FP32 model that predicts no better than chance, and of a perplexity of few tokens."""
    warnings = []
    scored = sum(window.num_scored for window in data.test)
    if scored < _FEW_TOKENS:
        warnings.append(f"the perplexity is that of only {scored} tokens: give more `test_data`")
    measured, vocabulary = metrics.get("fp32", {}).get(PERPLEXITY), data.layout.vocabulary
    if measured is not None and vocabulary is not None and measured > _CHANCE * vocabulary:
        warnings.append(
            f"the perplexity of FP32 is {measured:.4g}, hardly better than guessing among {vocabulary} tokens: is the "
            "text random, or the tokenizer that of another model?"
        )
    return warnings


def _run(stack: ExitStack, path: Path) -> Run:
    runner = stack.enter_context(onnx_runner(path))
    return lambda feeds: runner.infer(feeds, path.name)
