"""What an engine is made of, by TensorRT's engine inspector: which layers run in INT8, and where reformats sit."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from trt_ptq.errors import EngineError

# How the inspector writes types, in sentences ("Row major linear FP32") and in short ("Float", "Int8").
_TYPES = (
    (re.compile(r"\bint8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\b(bf16|bfloat16)\b", re.IGNORECASE), "bf16"),
    (re.compile(r"\b(fp16|half)\b", re.IGNORECASE), "fp16"),
    (re.compile(r"\b(fp32|float)\b", re.IGNORECASE), "fp32"),
    (re.compile(r"\b(fp8|int4|fp4|int32|int64|bool|uint8)\b", re.IGNORECASE), None),
)
_INT8_TACTIC = re.compile(r"i8i8|i8i32|i8f32|i8f16|imma|int8", re.IGNORECASE)
_REFORMATS = {"reformat", "move"}
_NO_WORK = {"noop", "constant", "signal", "wait"}  # an alias, data, and streams that wait for each other
_OPAQUE = "ForeignNode["  # a part of the network that the compiler took over and says nothing about
_FLOATS = {"fp32", "fp16", "bf16"}


@dataclass(frozen=True)
class LayerInfo:
    """One layer of the engine, after fusion.

    `kind` is TensorRT's layer type; `inputs` and `outputs` are the types of its tensors; `precision` is what it
    computes in: "int8", "fp16", ..., "unknown" where the engine does not say; None for a layer that computes nothing.
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
    """All layers of an engine in the order in which they run."""

    layers: tuple[LayerInfo, ...]

    def precisions(self) -> dict[str, int]:
        """How many layers compute in which precision, most frequent first; reformats are not counted."""
        return dict(Counter(layer.precision for layer in self.layers if layer.precision is not None).most_common())

    @property
    def int8(self) -> tuple[LayerInfo, ...]:
        """The layers that run in INT8."""
        return tuple(layer for layer in self.layers if layer.precision == "int8")

    @property
    def reformats(self) -> tuple[LayerInfo, ...]:
        """The layers that only change layout or type: each reads and writes a whole tensor."""
        return tuple(layer for layer in self.layers if layer.reformat)


def parse_inspection(text: str, where: str) -> Inspection:
    """Read what `EngineInspector.get_engine_information` gives as JSON; `where` names the engine in messages.

    A layer counts as INT8 if it reads INT8 and also writes it, has INT8 weights, or runs an INT8 kernel (by its
    tactic's name): a layer that reads INT8 only to dequantize it computes in its output's type.

    Raises:
        EngineError: not the inspector's JSON, or an engine that was built to tell only the names of its layers.
    """
    try:
        layers = json.loads(text)["Layers"]
        if layers and all(isinstance(layer, str) for layer in layers):
            raise EngineError(
                f"{where}: this engine tells only the names of its {len(layers)} layers; build it with trt-ptq, or "
                "with profiling verbosity DETAILED"
            )
        return Inspection(tuple(_layer(layer) for layer in layers))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{where}: the engine inspector answered something unknown: {error!r}") from error


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
    seen = [one for one in (*outputs, *inputs) if one in _FLOATS]
    return seen[0] if seen else next(iter((*outputs, *inputs)), "unknown")


def _type(text: str) -> str:
    for pattern, name in _TYPES:
        found = pattern.search(text)
        if found:
            return name or found[0].lower()
    return text.strip().lower() or "unknown"
