"""A recipe: how one model is quantized, as YAML that you can edit and run again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from trt_ptq._internal.files import write_atomic
from trt_ptq.calibrators.methods import RangeMethod, range_method
from trt_ptq.choices import CachePrecision, HighPrecision, Target, Technique
from trt_ptq.errors import UsageError
from trt_ptq.provenance import ModelIdentity

_HEAD = """\
# How trt-ptq quantizes this model. Edit it, then run it again; the same data, --batch-size and --tensors give the same
# model:
#   trt-ptq quantize MODEL --data DATA --recipe recipe.yaml
# MODEL: the float model; model.fp32.onnx beside this file if it was given as a torch module, ModelProto or HF folder
# method: minmax, percentile 99.99 (any number), entropy or mse
# layer_methods: another method for the activations that some layers read, e.g. [{layers: ["*down_proj*"], method: mse}]
# techniques: any of equalization, rotation, smoothquant, gptq, bias-correction
# nodes_to_exclude: nodes that are not quantized: names of nodes or of their outputs, op types, or patterns such as "c*"
# weight_only: nodes of which only the weight is INT8, named likewise; activations stay in float
"""
_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is no field of a recipe",
    "tuple_type": "must be a list",
    "model_type": "it has no fields",
    "dataclass_type": "it has no fields",
}


class LayerMethod(BaseModel):
    """The range method of the activations that some layers read.

    Attributes:
        layers: these layers, by the name of their first output; a recipe that is given to `quantize` may have whatever
            `QuantizeConfig.nodes_to_exclude` accepts.
        method: the range method, as tables name it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[str, ...]
    method: str

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        return _range_method(method).name


class Recipe(BaseModel):
    """How one model is quantized.

    Attributes:
        model: identity of the float model.
        method: the range method, as tables name it: "minmax", "percentile 99.99", "entropy" or "mse".
        layer_methods: range methods of single layers instead.
        techniques: accuracy-recovery techniques, in the order in which they are applied.
        attention: whether the MatMuls of attention are quantized.
        nodes_to_exclude: nodes that are not quantized, by the name of their first output; a recipe that is given to
            `quantize` may have whatever `QuantizeConfig.nodes_to_exclude` accepts.
        weight_only: nodes of which only the weight is quantized (W8A16), named likewise.
        high_precision: what runs around INT8.
        target: the builder that the model is meant for: "trt" (TensorRT) or "rtx" (TensorRT for RTX).
        kv_cache: precision of the cache of keys and values of a language model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model: ModelIdentity
    method: str
    layer_methods: tuple[LayerMethod, ...] = ()
    techniques: tuple[Technique, ...] = ()
    attention: bool = False
    nodes_to_exclude: tuple[str, ...] = ()
    weight_only: tuple[str, ...] = ()
    high_precision: HighPrecision = "fp16"
    target: Target = "trt"
    kv_cache: CachePrecision = "float"

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        return _range_method(method).name

    def range_method(self) -> RangeMethod:
        """The range method itself."""
        return _range_method(self.method)

    @property
    def method_names(self) -> tuple[str, ...]:
        """All range methods, that of single layers after that of all others."""
        return tuple(dict.fromkeys((self.method, *(one.method for one in self.layer_methods))))

    def methods_by_layer(self) -> dict[str, RangeMethod]:
        """`layer_methods` by layer; of several for a layer, the last one."""
        return {layer: _range_method(one.method) for one in self.layer_methods for layer in one.layers}

    def check_model(self, model: ModelIdentity, where: str) -> None:
        """Make sure that the recipe was written for `model`.

        Args:
            model: identity of the model that is to be quantized.
            where: names the recipe in the message.

        Raises:
            UsageError: says what differs.
        """
        difference = self.model.difference(model)
        if difference:
            raise UsageError(f"{where}: a recipe for another model: {difference}; quantize this model without it")


def _range_method(name: str) -> RangeMethod:
    family, _, percentile = name.partition(" ")
    try:
        return range_method(family, float(percentile) if percentile else None)
    except UsageError as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write `recipe` as YAML.

    Raises:
        OutputError: `path` cannot be written.
    """
    body = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(path, _HEAD + body)


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: the file is missing, not YAML, or not a recipe of this version; names the field.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UsageError(f"{path}: not YAML: {str(error).splitlines()[0]}{where}") from error
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise UsageError(f"{path}: not a recipe: {f'{field}: ' if field else ''}{reason}") from error
