"""The recipe that a job starts from: the one that was given, or what the options amount to."""

from __future__ import annotations

import os
from pathlib import Path

from trt_ptq.choices import Technique
from trt_ptq.config import TECHNIQUES, QuantizeConfig
from trt_ptq.engines.backends import builder_target
from trt_ptq.errors import UsageError
from trt_ptq.language_models.decoder import is_decoder
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.node_selection import select_nodes, select_weight_only
from trt_ptq.qdq.ranges.layer_methods import check_layer_methods
from trt_ptq.recipe import Recipe, load_recipe


def check_recipe(config: QuantizeConfig) -> None:
    """Read the recipe file, before a model is exported.

    Raises:
        UsageError: see `load_recipe`.
    """
    if config.recipe is not None and not isinstance(config.recipe, Recipe):
        load_recipe(Path(config.recipe))


def recipe_of(model: Model, config: QuantizeConfig) -> Recipe:
    """The recipe that was given, or that the config amounts to before anything is tuned.

    Raises:
        UsageError: the recipe cannot be read, is for another model, or the config names a node that there is not.
    """
    if isinstance(config.recipe, Recipe):
        config.recipe.check_model(model.identity, "recipe")
        return config.recipe
    if config.recipe is not None:
        recipe = load_recipe(Path(config.recipe))
        recipe.check_model(model.identity, os.fspath(config.recipe))
        return recipe
    graph = model.to_ir().graph
    excluded = select_nodes(graph, config.nodes_to_include, config.nodes_to_exclude)
    return Recipe(
        model=model.identity,
        method=config.methods[0].name,
        techniques=_techniques(model, config),
        attention=config.attention,
        nodes_to_exclude=excluded,
        weight_only=select_weight_only(graph, ["*"], excluded) if config.mode == "w8a16" else (),
        high_precision=config.high_precision,
        target=builder_target(config.backend) if config.target == "auto" else config.target,
        kv_cache=config.kv_cache,
    )


def _techniques(model: Model, config: QuantizeConfig) -> tuple[Technique, ...]:
    """The techniques that are applied in any case: those that were asked for, and by default some to language models.

    Without SmoothQuant, INT8 activations ruin them: SmolLM2-135M loses 60 % instead of 2 %. Rotation takes away 0.3 to
    1.4 points of that. GPTQ takes away 0.5, and keeps the rounding of weights that it does not improve.
    """
    is_default = "auto" in config.techniques and is_decoder(model)
    default = [] if not is_default else ["gptq"] if config.mode == "w8a16" else ["rotation", "smoothquant", "gptq"]
    chosen = {*config.techniques, *default}
    return tuple(technique for technique in TECHNIQUES if technique in chosen)


def with_names_of_layers(recipe: Recipe, model: Model, config: QuantizeConfig) -> Recipe:
    """`recipe` with each node that it names by its first output.

    Raises:
        UsageError: it names a node that there is not, gives layers that read one tensor different range methods, or a
            range method to layers that read no activation in INT8.
    """
    if config.recipe is None:
        return recipe
    file = "recipe" if isinstance(config.recipe, Recipe) else os.fspath(config.recipe)
    graph = model.to_ir().graph
    excluded = select_nodes(graph, exclude=recipe.nodes_to_exclude, exclude_name=f"{file}: nodes_to_exclude")
    weight_only = select_weight_only(graph, recipe.weight_only, excluded, f"{file}: weight_only")
    by_layer = tuple(
        one.model_copy(
            update={"layers": select_nodes(graph, exclude=one.layers, exclude_name=f"{file}: layer_methods")}
        )
        for one in recipe.layer_methods
    )
    layers = {"nodes_to_exclude": excluded, "weight_only": weight_only, "layer_methods": by_layer}
    named = recipe.model_copy(update=layers)
    groups = [one.layers for one in by_layer]
    try:
        check_layer_methods(graph, named.methods_by_layer(), recipe.attention, groups)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    return named
