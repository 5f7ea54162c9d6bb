"""The techniques of the recipe that tuning starts from: applied where they apply to the model, whatever they gain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trt_ptq.choices import Technique
from trt_ptq.errors import TrtPtqError
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.tuning.judge import Judge
from trt_ptq.tuning.technique_order import with_technique
from trt_ptq.tuning.trials import DEFAULT_FAILED, LEFT_OUT, TITLES, UNUSED, Trial


@dataclass(frozen=True)
class Applied:
    """A recipe with the techniques that apply, one trial for each technique, and warnings of those left out."""

    recipe: Recipe
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]


def apply_techniques(
    recipe: Recipe,
    techniques: Iterable[Technique],
    candidates: CandidateBuilder,
    by_default: tuple[Technique, ...],
    judge: Judge,
) -> Applied:
    """Add techniques to a recipe.

    Args:
        recipe: the recipe.
        techniques: what to add, in this order.
        candidates: applies them to the model.
        by_default: techniques that nobody asked for: left out where they fail, and not warned of where they do not
            apply. Only GPTQ is left out when the time is up: without the others, INT8 activations are of no use.
        judge: knows when the time is up.

    Raises:
        DataError, ModelError: a technique that was asked for fails on the model or its data.
    """
    trials, warnings = [], []
    for technique in techniques:
        title = TITLES[technique]
        if technique == "gptq" and technique in by_default and judge.time_is_up:
            warnings.append(LEFT_OUT.format(title))
            continue
        changed = with_technique(recipe, technique)
        try:
            summary = candidates.summarize(changed, technique)
        except TrtPtqError as error:
            if technique not in by_default:
                raise
            trials.append(Trial(title, {}, {}, "failed", str(error)))
            warnings.append(DEFAULT_FAILED.format(title, error))
            continue
        if summary.num_sites:
            recipe = changed
            trials.append(Trial(title, {}, {}, "applied", summary.note))
        else:
            trials.append(Trial(title, {}, {}, "does not apply", summary.note))
            warnings += [] if technique in by_default else [UNUSED.format(title)]
    return Applied(recipe, tuple(trials), tuple(warnings))
