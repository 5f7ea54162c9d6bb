"""QuantizeConfig validates all of itself, before any work."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import UsageError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe
from trt_ptq.types import ShapeProfile

PROFILE = ShapeProfile((1, 3), (8, 3), (16, 3))

VALID: list[tuple[dict[str, Any], str, object]] = [
    ({"max_drop": "1%"}, "max_drop", 0.01),
    ({"max_drop": "0.5%"}, "max_drop", 0.005),
    ({"max_drop": "0.02"}, "max_drop", 0.02),
    ({"max_drop": 0}, "max_drop", 0.0),
    ({"max_drop": "50%"}, "max_drop", 0.5),
    ({"until_stable": "5%"}, "until_stable", 0.05),
    ({"time_limit": "90s"}, "time_limit", 90.0),
    ({"time_limit": "1.5 h"}, "time_limit", 5400.0),
    ({"time_limit": "10m"}, "time_limit", 600.0),
    ({"time_limit": "45"}, "time_limit", 45.0),
    ({"time_limit": 45}, "time_limit", 45.0),
    ({"memory_limit": "4GB"}, "memory_limit", 4_000_000_000),
    ({"memory_limit": "1.5 gb"}, "memory_limit", 1_500_000_000),
    ({"memory_limit": 10**9}, "memory_limit", 10**9),
    ({"percentile": 99}, "method", "percentile"),
    ({"percentile": 99.9, "method": "percentile"}, "percentile", 99.9),
    ({"techniques": ()}, "techniques", ()),
    ({"techniques": "equalization"}, "techniques", ("equalization",)),
    ({"techniques": ["auto", "smoothquant", "equalization"]}, "techniques", ("equalization", "smoothquant", "auto")),
    ({"nodes_to_exclude": "Conv"}, "nodes_to_exclude", ("Conv",)),
    ({"nodes_to_exclude": ["a", "b", "a"]}, "nodes_to_exclude", ("a", "b")),
    ({"tensors": "all"}, "tensors", ("all",)),
    ({"lower_is_better": ["perplexity"]}, "lower_is_better", ("perplexity",)),
    ({"shapes": {"x": "1x3:8x3:16x3"}}, "shapes", {"x": PROFILE}),
    ({"shapes": {"x": [(1, 3), (8, 3), (16, 3)]}}, "shapes", {"x": PROFILE}),
    ({"shapes": {"x": PROFILE}}, "shapes", {"x": PROFILE}),
    ({"shapes": {"x": "8x3"}}, "shapes", {"x": ShapeProfile((8, 3), (8, 3), (8, 3))}),
    ({"shapes": {"x": (8, 3)}}, "shapes", {"x": ShapeProfile((8, 3), (8, 3), (8, 3))}),
    ({"recipe": "recipe.yaml"}, "recipe", "recipe.yaml"),
    ({"recipe": Path("recipe.yaml")}, "recipe", Path("recipe.yaml")),
]

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"method": "kl"}, "`method` must be one of auto, entropy, minmax, mse, percentile, not 'kl'"),
    ({"method": None}, "`method`"),
    ({"percentile": 0}, "`percentile`"),
    ({"percentile": 101}, "`percentile`"),
    ({"percentile": math.nan}, "`percentile`"),
    ({"percentile": True}, "`percentile`"),
    ({"percentile": "99"}, "`percentile`"),
    ({"percentile": 0.999}, "`percentile`"),
    ({"percentile": 99, "method": "mse"}, "`percentile` belongs to method"),
    (
        {"target": "rtx", "high_precision": "fp32"},
        "`target=rtx` is a form of the model with float16 activations: it needs `high_precision=fp16`",
    ),
    ({"effort": "huge"}, "`effort` must be one of low, medium, high, not 'huge'"),
    ({"time_limit": "10 min"}, '`time_limit` must be a duration such as "90s", "10m" or "2h", not '),
    ({"time_limit": 0}, "`time_limit`"),
    ({"time_limit": "m"}, "`time_limit`"),
    ({"time_limit": math.inf}, "`time_limit`"),
    ({"time_limit": True}, "`time_limit`"),
    ({"max_drop": -0.1}, "`max_drop`"),
    ({"max_drop": 1.5}, "`max_drop`"),
    ({"max_drop": math.nan}, "`max_drop`"),
    ({"max_drop": True}, "`max_drop`"),
    ({"max_drop": None}, "`max_drop`"),
    ({"max_drop": "much"}, "`max_drop`"),
    ({"max_drop": ""}, "`max_drop`"),
    ({"max_drop": "2"}, "write 2%"),
    ({"max_drop": 5}, "a percentage such as 1% or a fraction below 0.1, not 5: write 5%"),
    ({"max_drop": 0.5}, "write 0.5% or 50%"),
    ({"max_drop": "0.5"}, "write 0.5% or 50%"),
    ({"until_stable": 0}, "`until_stable`"),
    ({"until_stable": "100%"}, "`until_stable`"),
    ({"until_stable": False}, "`until_stable`"),
    ({"memory_limit": 0}, "`memory_limit`"),
    ({"memory_limit": -1}, "`memory_limit`"),
    ({"memory_limit": True}, "`memory_limit`"),
    ({"memory_limit": 1.5e9}, "`memory_limit`"),
    ({"memory_limit": "4"}, "`memory_limit`"),
    ({"memory_limit": "infGB"}, "`memory_limit`"),
    ({"memory_limit": "nanGB"}, "`memory_limit`"),
    ({"memory_limit": "4GB", "device": "cuda"}, "`memory_limit` applies to device cpu"),
    (
        {"techniques": ("hope",)},
        "`techniques` must be one of equalization, rotation, smoothquant, gptq, bias-correction, auto",
    ),
    ({"techniques": None}, "`techniques`"),
    ({"techniques": {"auto"}}, "`techniques`"),
    ({"search": 1}, "`search`"),
    ({"attention": "yes"}, "`attention`"),
    ({"nodes_to_exclude": [1]}, "`nodes_to_exclude`"),
    ({"nodes_to_exclude": [""]}, "`nodes_to_exclude`"),
    ({"nodes_to_include": 3}, "`nodes_to_include`"),
    ({"high_precision": "bf16"}, "`high_precision` must be one of fp16, fp32"),
    ({"tensors": ()}, "`tensors`"),
    ({"nonfinite": "ignore"}, "`nonfinite` must be one of refuse, skip"),
    ({"device": "gpu"}, "`device` must be one of cpu, cuda"),
    ({"batch_size": 0}, "`batch_size`"),
    ({"batch_size": 2.0}, "`batch_size`"),
    ({"batch_size": True}, "`batch_size`"),
    ({"shapes": [("x", "1x3")]}, "`shapes`"),
    ({"shapes": {"x": "1x3:8x3"}}, "`shapes`: write MIN:OPT:MAX"),
    ({"shapes": {"x": "1xn"}}, "`shapes`: write MIN:OPT:MAX"),
    ({"shapes": {"x": "0x3"}}, "`shapes`: write MIN:OPT:MAX"),
    ({"shapes": {"x": (0, 3)}}, "`shapes`: 'x' must be MIN:OPT:MAX"),
    ({"shapes": {"x": ()}}, "`shapes`: 'x'"),
    ({"shapes": {"x": 3}}, "`shapes`: 'x'"),
    ({"shapes": {"x": [(1, 3), (8, 3)]}}, "`shapes`: 'x'"),
    ({"shapes": {"x": [(1, 3), 8, 3]}}, "`shapes`: 'x'"),
    ({"shapes": {"x": (0, 3)}}, "`shapes`: 'x'"),
    ({"shapes": {"x": "8x3:1x3:16x3"}}, "MIN <= OPT <= MAX"),
    ({"backend": "tvm"}, "`backend` must be one of auto, trt, rtx, none"),
    ({"lower_is_better": [None]}, "`lower_is_better`"),
    ({"recipe": 3}, "`recipe`"),
    ({"recipe": "r.yaml", "method": "minmax"}, "`method` is defined by r.yaml"),
    ({"recipe": "r.yaml", "nodes_to_exclude": "Conv"}, "`nodes_to_exclude` is defined by r.yaml"),
]


def readable(value: object) -> str:
    return str(value) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("given", "name", "held"), VALID, ids=readable)
def test_values_are_parsed(given: dict[str, Any], name: str, held: object) -> None:
    value = getattr(QuantizeConfig(**given), name)
    assert value == held
    assert isinstance(value, type(held))


@pytest.mark.parametrize(("given", "message"), INVALID, ids=readable)
def test_what_is_not_allowed_is_refused_by_name_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        QuantizeConfig(**given)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="max_dorp"):
        QuantizeConfig(max_dorp=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config)), replace])
def test_a_config_is_equal_to_its_copy(copied: Any) -> None:
    config = QuantizeConfig(max_drop="1%", shapes={"x": "1x3:8x3:16x3"}, nodes_to_exclude=["Conv"])
    assert copied(config) == config
    assert hash(copied(config)) == hash(config)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        QuantizeConfig().max_drop = 0.5  # type: ignore[misc]


def test_it_prints_what_differs_from_the_defaults() -> None:
    assert repr(QuantizeConfig()) == "QuantizeConfig()"
    config = QuantizeConfig(max_drop="2%", percentile=99.9, techniques=())
    assert repr(config) == "QuantizeConfig(method='percentile', percentile=99.9, max_drop=0.02, techniques=())"


def test_auto_compares_all_methods_and_others_only_themselves() -> None:
    assert QuantizeConfig().methods == AUTO_CANDIDATES
    assert [method.name for method in QuantizeConfig(method="mse").methods] == ["mse"]
    assert [method.name for method in QuantizeConfig(percentile=99.9).methods] == ["percentile 99.9"]


def test_a_recipe_object_is_taken() -> None:
    recipe = Recipe(model=ModelIdentity("1", "2"), method="minmax")
    assert QuantizeConfig(recipe=recipe).recipe is recipe


def test_a_config_with_a_large_max_drop_can_be_copied() -> None:
    assert dataclasses.replace(QuantizeConfig(max_drop="50%"), search=False).max_drop == 0.5
