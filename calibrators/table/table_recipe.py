"""What a table must record beside its ranges so that it leads to the very INT8 model that was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trt_ptq.errors import TableError

HeadScales = tuple[tuple[float, ...], ...]  # of a cache tensor: for each head one scale, or one for each channel


@dataclass(frozen=True)
class TableRecipe:
    """How `quantize` built the INT8 model from the ranges of a table; for the float model of the table only.

    Attributes:
        nodes_to_exclude: nodes that are not quantized, by their first output.
        attention: whether the MatMuls of attention are quantized.
        high_precision: what runs around INT8.
        magnitudes: for "fp16": the largest magnitude of each float32 activation, by tensor name.
        bias_corrections: correction of each output channel, by the first output of the layer; None without bias
            correction.
        cache_scales: of a language model with an INT8 cache of keys and values: the scales of each cache output.
        weight_only: nodes of which only the weight is quantized, by their first output.
        target: the builder that the model is meant for; it decides on the form of convolutions.
    """

    nodes_to_exclude: tuple[str, ...]
    attention: bool
    high_precision: Literal["fp16", "fp32"]
    magnitudes: Mapping[str, float]
    bias_corrections: Mapping[str, tuple[float, ...]] | None = None
    weight_only: tuple[str, ...] = ()
    target: Literal["trt", "rtx"] = "trt"
    cache_scales: Mapping[str, HeadScales] = field(default_factory=dict)


def parse_table_recipe(content: Any) -> TableRecipe:
    """Read the recipe of a JSON table.

    Raises:
        TableError: it is of an INT8 cache without scales of its own.
        ValueError, KeyError, TypeError, AttributeError: it is damaged.
    """
    if content.get("int8_cache") and not content.get("cache_scales"):  # one scale a tensor, before there were several
        raise TableError("it has an INT8 cache without scales for it, of an earlier version: run quantize again")
    if content["high_precision"] not in ("fp16", "fp32"):
        raise ValueError(f"high_precision is {content['high_precision']!r}")
    target = content.get("target", "trt")  # absent before there was a choice
    if target not in ("trt", "rtx"):
        raise ValueError(f"target is {target!r}")
    corrections = content["bias_corrections"]
    return TableRecipe(
        nodes_to_exclude=tuple(map(str, content["nodes_to_exclude"])),
        attention=bool(content["attention"]),
        high_precision=content["high_precision"],
        magnitudes={name: float(value) for name, value in content["magnitudes"].items()},
        bias_corrections=None
        if corrections is None
        else {name: tuple(map(float, corrections[name])) for name in corrections},
        weight_only=tuple(map(str, content.get("weight_only", ()))),  # absent before there was this mode
        target=target,
        cache_scales={
            name: tuple(tuple(map(float, head)) for head in heads)
            for name, heads in content.get("cache_scales", {}).items()
        },
    )
