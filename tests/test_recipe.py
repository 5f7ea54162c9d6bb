"""Recipes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_ptq.calibrators.methods import METHODS, range_method
from trt_ptq.errors import UsageError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe, load_recipe, save_recipe

RECIPE = Recipe(
    model=ModelIdentity("12", "0x1e3"),
    method="percentile 99.9",
    techniques=("smoothquant", "bias-correction"),
    nodes_to_exclude=("c1", "yes", "1.0", "ä: #"),
)


def test_a_recipe_comes_back_as_it_was_written(tmp_path: Path) -> None:
    save_recipe(RECIPE, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == RECIPE


@pytest.mark.parametrize("method", [*METHODS.values(), range_method("percentile", 99.9)])
def test_the_method_is_found_by_its_name(method) -> None:  # type: ignore[no-untyped-def]
    assert Recipe(model=RECIPE.model, method=method.name).range_method() == method


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("nodes_to_exclude: [", "not YAML"),
        ("- a\n- b\n", "not a recipe: it has no fields"),
        ("model: model.onnx\nmethod: minmax\n", "not a recipe: model: it has no fields"),
        ("", "not a recipe"),
        ("method: minmax\n", "model: is missing"),
        ("model: {graph: a, weights: b}\nmethod: minmax\nkeep_flaot: []\n", "keep_flaot: is no field"),
        ("model: {graph: a, weights: b}\nmethod: minmax\nnodes_to_exclude: [1]\n", "nodes_to_exclude.0"),
        ("model: {graph: a, weights: b}\nmethod: minmax\nnodes_to_exclude: c1\n", "nodes_to_exclude: must be a list"),
        ("model: {graph: a, weights: b}\nmethod: percentile most\n", "method: .percentile most.: could not convert"),
        ("model: {graph: a, weights: b}\nmethod: huge\n", "not a recipe: method: unknown method .huge."),
        ("model: {graph: a, weights: b}\nmethod: minmax\ntechniques: [hope]\n", "techniques.0"),
        ("model: {graph: a, weights: b}\nmethod: minmax\nrepairs: [bias]\n", "repairs: is no field"),
        ("model: {graph: a, weights: b}\nmethod: minmax\nkeep_float: [c1]\n", "keep_float: is no field"),
        ("model: {graph: a, weights: b}\nmethod: minmax\ntechniques: [equalize]\n", "equalization"),
        ("model: {graph: a, weights: b}\nmethod: auto\n", "method: .*auto"),
        ("version: 2\nmodel: {graph: a, weights: b}\nmethod: minmax\n", "version"),
        ("!!python/object/apply:os.getcwd []\n", "not YAML"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=told) as refused:
        load_recipe(path)
    assert "\n" not in str(refused.value)


def test_a_method_that_a_person_wrote_otherwise_is_the_same(tmp_path: Path) -> None:
    for name in ("percentile", "percentile 99.990"):
        (tmp_path / "recipe.yaml").write_text(f"model: {{graph: a, weights: b}}\nmethod: {name}\n")
        assert load_recipe(tmp_path / "recipe.yaml").method == "percentile 99.99"


def test_a_recipe_of_another_model_is_refused() -> None:
    with pytest.raises(UsageError, match="another model: the graph is the same but the weights differ"):
        RECIPE.check_model(ModelIdentity("12", "other"), "recipe.yaml")
