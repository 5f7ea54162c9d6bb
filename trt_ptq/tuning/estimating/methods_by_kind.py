"""Range methods for kinds of layers: attention projections, MLPs and heads differ in how their activations spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trt_ptq.recipe import LayerMethod, Recipe
from trt_ptq.tuning.estimating.estimates import Estimates


def with_methods_by_kind(
    recipe: Recipe,
    kinds: Sequence[tuple[str, ...]],
    methods: Sequence[str],
    estimates: Estimates,
    time_is_up: Callable[[], bool],
) -> Recipe:
    """Give each kind of layer the range method with the smallest output error, one kind after the other.

    Args:
        recipe: the recipe, whose method stays where no other is better.
        kinds: see `kinds_of_layers`.
        methods: the methods to choose from, as tables name them.
        estimates: measures output errors.
        time_is_up: whether no further one may be measured.

    Raises:
        DataError, ModelError: see `OutputDeviation.measure`.
    """
    best, least = recipe, estimates.output_error(recipe)
    for layers in kinds:
        chosen = best.layer_methods
        for method in methods:
            if method == recipe.method:
                continue
            if time_is_up():
                return best
            by_layer = (*chosen, LayerMethod(layers=layers, method=method))
            tried = recipe.model_copy(update={"layer_methods": by_layer})
            if (error := estimates.output_error(tried)) < least:
                best, least = tried, error
    return best
