"""From the options of `trt-ptq quantize` to its config."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from trt_ptq.config import QuantizeConfig, check_recipe_alone
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.errors import UsageError

_NONE = "none"


class TechniqueName(str, Enum):  # Typer takes no lists of Literal
    """`TechniqueChoice`, and none."""

    AUTO = "auto"
    NONE = "none"
    EQUALIZATION = "equalization"
    ROTATION = "rotation"
    SMOOTHQUANT = "smoothquant"
    GPTQ = "gptq"
    BIAS_CORRECTION = "bias-correction"


def quantize_config(recipe: Path | None, shape: list[str] | None, **options: Any) -> QuantizeConfig:
    """The config that the options amount to; None, False and an empty list are options that were not given.

    Raises:
        UsageError: see `QuantizeConfig`; or an option that the recipe defines, even if it says the same.
    """
    given = {name: value for name, value in options.items() if value is not None and value is not False and value != []}
    if recipe is not None:
        check_recipe_alone(recipe, given)
        given["recipe"] = recipe
    if given.get("method") == "auto" and "percentile" in given:
        raise UsageError("`percentile` belongs to method percentile, not to auto")
    if _NONE in given.get("techniques", ()):
        if len(given["techniques"]) > 1:
            raise UsageError(f"`techniques={_NONE}` cannot be combined with others")
        given["techniques"] = ()
    return QuantizeConfig(shapes=parse_profiles(shape or []), **given)
