"""The order of techniques: GPTQ rounds the weights of the final float model, so it comes last."""

from __future__ import annotations

from trt_ptq.choices import Technique
from trt_ptq.recipe import Recipe


def with_technique(recipe: Recipe, technique: Technique) -> Recipe:
    """`recipe` with `technique` too, before GPTQ."""
    return recipe.model_copy(update={"techniques": gptq_last((*recipe.techniques, technique))})


def without_gptq(recipe: Recipe) -> Recipe:
    """`recipe` without GPTQ."""
    return recipe.model_copy(update={"techniques": tuple(name for name in recipe.techniques if name != "gptq")})


def gptq_last(techniques: tuple[Technique, ...]) -> tuple[Technique, ...]:
    """`techniques` with GPTQ, if it is one of them, as the last one."""
    return tuple(sorted(techniques, key=lambda name: name == "gptq"))
