"""Range methods for kinds of layers: attention projections, MLPs and heads differ in how their activations spread."""

from __future__ import annotations

from collections.abc import Sequence

from trt_ptq.recipe import LayerMethod, Recipe
from trt_ptq.tuning.estimating.estimates import Estimates


def with_methods_by_kind(
    recipe: Recipe, kinds: Sequence[tuple[str, ...]], methods: Sequence[str], estimates: Estimates
) -> Recipe:
    """Give each kind of layer the range method with the smallest output error, one kind after the other.

    Args:
        recipe: the recipe, whose method stays where no other is better.
        kinds: see `kinds_of_layers`.
        methods: the methods to choose from, as tables name them.
        estimates: measures output errors.

    Raises:
        DataError, ModelError: see `OutputDeviation.measure`.
    """
    for layers in kinds:
        tried = [
            recipe.model_copy(
                update={"layer_methods": (*recipe.layer_methods, LayerMethod(layers=layers, method=method))}
            )
            for method in methods
            if method != recipe.method
        ]
        recipe = min([recipe, *tried], key=estimates.output_error)
    return recipe
