"""Layers of an engine by TensorRT's engine inspector: their precisions, and the reformats between them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from trt_ptq.errors import EngineError

# The inspector writes types as sentences ("Row major linear FP32") or as words ("Float", "Int8").
_TYPES = (
    (re.compile(r"\bint8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\b(bf16|bfloat16)\b", re.IGNORECASE), "bf16"),
    (re.compile(r"\b(fp16|half)\b", re.IGNORECASE), "fp16"),
    (re.compile(r"\b(fp32|float)\b", re.IGNORECASE), "fp32"),
    (re.compile(r"\b(fp8|int4|fp4|int32|int64|bool|uint8)\b", re.IGNORECASE), None),
)
_INT8_TACTIC = re.compile(r"i8i8|i8i32|i8f32|i8f16|imma|int8", re.IGNORECASE)
_REFORMATS = {"reformat", "move"}
_NO_WORK = {"noop", "constant", "signal", "wait"}  # aliases, constants, and synchronization of streams
_OPAQUE = "ForeignNode["  # a subgraph compiled by a Myelin kernel, without details
_FLOATS = {"fp32", "fp16", "bf16"}


@dataclass(frozen=True)
class LayerInfo:
    """One layer of the engine, after fusion.

    `kind` is TensorRT's layer type; `inputs` and `outputs` are the types of its tensors; `precision` is the type in
    which it computes: "int8", "fp16", ..., "unknown" if the engine does not say, None if it computes nothing.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: str | None
    tactic: str

    @property
    def reformat(self) -> bool:
        """Whether the layer only changes layout or type."""
        return self.kind.lower() in _REFORMATS


@dataclass(frozen=True)
class Inspection:
    """All layers of an engine, in execution order."""

    layers: tuple[LayerInfo, ...]

    def precisions(self) -> dict[str, int]:
        """Number of layers by precision, most frequent first, without reformats."""
        return dict(Counter(layer.precision for layer in self.layers if layer.precision is not None).most_common())

    @property
    def int8(self) -> tuple[LayerInfo, ...]:
        """The layers that compute in INT8."""
        return tuple(layer for layer in self.layers if layer.precision == "int8")

    @property
    def reformats(self) -> tuple[LayerInfo, ...]:
        """The layers that only change layout or type: each reads and writes a whole tensor."""
        return tuple(layer for layer in self.layers if layer.reformat)


def parse_inspection(text: str, where: str) -> Inspection:
    """Parse the JSON of `EngineInspector.get_engine_information`.

    A layer counts as INT8 if it reads INT8 and also writes INT8, has INT8 weights, or runs an INT8 kernel (by the name
    of its tactic). A layer that reads INT8 only to dequantize it computes in the type of its output.

    Args:
        text: the JSON.
        where: name of the engine, for messages.

    Raises:
        EngineError: not the inspector's JSON, or an engine that was built with only the names of its layers.
    """
    try:
        layers = json.loads(text)["Layers"]
        if layers and all(isinstance(layer, str) for layer in layers):
            raise EngineError(
                f"{where}: this engine contains only the names of its {len(layers)} layers; build it with trt-ptq, or "
                "with profiling verbosity DETAILED"
            )
        return Inspection(tuple(_layer(layer) for layer in layers))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{where}: unexpected output of the engine inspector: {error!r}") from error


def _layer(layer: dict[str, Any]) -> LayerInfo:
    kind, tactic = str(layer.get("LayerType", "")), str(layer.get("TacticName", ""))
    inputs = tuple(_type(tensor["Format/Datatype"]) for tensor in layer["Inputs"])
    outputs = tuple(_type(tensor["Format/Datatype"]) for tensor in layer["Outputs"])
    weights = layer.get("Weights")
    int8_weights = isinstance(weights, dict) and _type(str(weights.get("Type", ""))) == "int8"
    precision: str | None = None
    if _OPAQUE in layer["Name"]:
        precision = "unknown"
    elif kind.lower() not in _REFORMATS | _NO_WORK:
        precision = _precision(inputs, outputs, int8_weights or bool(_INT8_TACTIC.search(tactic)))
    return LayerInfo(str(layer["Name"]), kind, inputs, outputs, precision, tactic)


def _precision(inputs: tuple[str, ...], outputs: tuple[str, ...], int8_kernel: bool) -> str:
    if "int8" in inputs and (int8_kernel or "int8" in outputs):
        return "int8"
    dtypes = (*outputs, *inputs)
    return next((dtype for dtype in dtypes if dtype in _FLOATS), dtypes[0] if dtypes else "unknown")


def _type(text: str) -> str:
    for pattern, name in _TYPES:
        match = pattern.search(text)
        if match:
            return name or match[0].lower()
    return text.strip().lower() or "unknown"
