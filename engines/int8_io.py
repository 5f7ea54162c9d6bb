"""Inputs and outputs of a model that are INT8 where those of the float model are float, such as a cache of keys and
values: they are fed and read as float values, so that the same data serve both models."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from trt_ptq.types import Array, Feeds

INT8_IO = "trt_ptq.int8_io"  # metadata of the model: JSON, the scale by name of the input or output
_LOWEST, _HIGHEST = -128, 127


def int8_scales(metadata: Mapping[str, str]) -> dict[str, float]:
    """The scales of the INT8 inputs and outputs of a model with this metadata, by name; empty without such."""
    return {str(name): float(scale) for name, scale in json.loads(metadata.get(INT8_IO, "{}")).items()}


def quantized_feeds(feeds: Feeds, scales: Mapping[str, float]) -> dict[str, Array]:
    """`feeds` with float values of INT8 inputs quantized, as QuantizeLinear does."""
    return {
        name: _quantized(array, scales[name]) if name in scales and array.dtype != np.int8 else array
        for name, array in feeds.items()
    }


def dequantized(outputs: Mapping[str, Array], scales: Mapping[str, float]) -> dict[str, Array]:
    """`outputs` with those in INT8 as float32."""
    return {
        name: array.astype(np.float32) * np.float32(scales[name]) if name in scales else array
        for name, array in outputs.items()
    }


def _quantized(array: Array, scale: float) -> Array:
    steps = np.rint(array.astype(np.float32) / np.float32(scale))
    quantized: Array = np.clip(steps, _LOWEST, _HIGHEST).astype(np.int8)
    return quantized
