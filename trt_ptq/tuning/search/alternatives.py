"""What a layer can be where it loses too much in INT8: not quantized, or weight-only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from trt_ptq.recipe import Recipe


@dataclass(frozen=True)
class Alternative:
    """What a layer can be instead of INT8.

    Attributes:
        field: the field of the recipe that lists such layers.
        name: what texts call them.
    """

    field: Literal["nodes_to_exclude", "weight_only"]
    name: str

    def apply(self, recipe: Recipe, layers: Collection[str]) -> Recipe:
        """`recipe` with these `layers` changed."""
        return recipe.model_copy(update={self.field: (*getattr(recipe, self.field), *layers)})


EXCLUDED = Alternative("nodes_to_exclude", "excluded")
WEIGHT_ONLY = Alternative("weight_only", "weight-only")
