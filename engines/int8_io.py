"""Inputs and outputs of a model that are INT8 where those of the float model are float, such as a cache of keys and
values: they are fed and read as float values, so that the same data serve both models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Union

import numpy as np

from trt_ptq.types import Array, Feeds

INT8_IO = "trt_ptq.int8_io"  # metadata of the model: JSON, the scales by name of the input or output
_LOWEST, _HIGHEST = -128, 127

IoScales = Union[float, list[Any]]  # a number, or nested lists of them that broadcast with the array


def int8_scales(metadata: Mapping[str, str]) -> dict[str, IoScales]:
    """The scales of the INT8 inputs and outputs of a model with this metadata, by name; empty without such."""
    scales: dict[str, IoScales] = json.loads(metadata.get(INT8_IO, "{}"))
    return scales


def quantized_feeds(feeds: Feeds, scales: Mapping[str, IoScales]) -> dict[str, Array]:
    """`feeds` with float values of INT8 inputs quantized, as QuantizeLinear does."""
    return {
        name: _quantized(array, scales[name]) if name in scales and array.dtype != np.int8 else array
        for name, array in feeds.items()
    }


def dequantized(outputs: Mapping[str, Array], scales: Mapping[str, IoScales]) -> dict[str, Array]:
    """`outputs` with those in INT8 as float32."""
    return {
        name: array.astype(np.float32) * np.asarray(scales[name], np.float32) if name in scales else array
        for name, array in outputs.items()
    }


def _quantized(array: Array, scales: IoScales) -> Array:
    steps = np.rint(array.astype(np.float32) / np.asarray(scales, np.float32))
    quantized: Array = np.clip(steps, _LOWEST, _HIGHEST).astype(np.int8)
    return quantized
