"""How to quantize: by options, or by a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from trt_ptq.calibrators.methods import AUTO_CANDIDATES, RangeMethod, range_method
from trt_ptq.cli.parse import parse_high_precision
from trt_ptq.errors import UsageError
from trt_ptq.fp16.convert import HighPrecision
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Technique, load_recipe

_AUTO, _NONE = "auto", "none"
_REPAIRS: tuple[Technique, ...] = get_args(Technique)


@dataclass(frozen=True)
class QuantizationChoices:
    """As in `QuantizeJob`. `given` names the options that a recipe would contradict."""

    method: RangeMethod
    techniques: tuple[Technique, ...]
    repair: bool
    attention: bool
    high_precision: HighPrecision
    alternatives: tuple[RangeMethod, ...] = ()
    nodes_to_exclude: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        method: str | None,
        percentile: float | None,
        repair: Sequence[str] | None,
        attention: bool,
        high_precision: str | None,
    ) -> QuantizationChoices:
        """What the options say; None is an option that was not given.

        Raises:
            UsageError: no such method, repair or precision.
        """
        options = {
            "--method": method,
            "--percentile": percentile,
            "--repair": repair,
            "--attention": attention,
            "--high-precision": high_precision,
        }
        techniques, others = _parse_techniques(repair or [_AUTO])
        if method == _AUTO and percentile is not None:
            raise UsageError("--percentile belongs to --method percentile, not to auto")
        best_of_all = method in (None, _AUTO) and percentile is None
        return cls(
            method=AUTO_CANDIDATES[0] if best_of_all else range_method(method or "percentile", percentile),
            alternatives=AUTO_CANDIDATES[1:] if best_of_all else (),
            techniques=techniques,
            repair=others,
            attention=attention,
            high_precision=parse_high_precision(high_precision or "fp16"),
            given=tuple(name for name, value in options.items() if value not in (None, False)),
        )

    @classmethod
    def by_recipe(cls, path: Path, model: ModelIdentity) -> QuantizationChoices:
        """What the recipe at `path` says.

        Raises:
            UsageError: see `load_recipe`; or it is of another model.
        """
        recipe = load_recipe(path)
        recipe.check_model(model, str(path))
        return cls(
            method=recipe.range_method(),
            techniques=recipe.techniques,
            repair=False,
            attention=recipe.attention,
            high_precision=recipe.high_precision,
            nodes_to_exclude=recipe.nodes_to_exclude,
        )

    def check_alone(self, recipe: Path) -> None:
        """Make sure that no option says what the recipe does.

        Raises:
            UsageError: with the first that does.
        """
        if self.given:
            raise UsageError(f"{self.given[0]} is what {recipe} says already: edit that, or leave one of the two out")


def _parse_techniques(names: Sequence[str]) -> tuple[tuple[Technique, ...], bool]:
    """The repairs to make in any case, and whether the others may be tried."""
    unknown = [name for name in names if name not in (*_REPAIRS, _AUTO, _NONE)]
    if unknown:
        raise UsageError(f"--repair is {', '.join(_REPAIRS)}, {_AUTO} or {_NONE}, not {unknown[0]!r}")
    if _NONE in names and len(names) > 1:
        raise UsageError(f"--repair {_NONE} goes with no other")
    return tuple(one for one in _REPAIRS if one in names), _AUTO in names
