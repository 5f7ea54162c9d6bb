"""QuantizeConfig: every option of `quantize`, validated in one place."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from trt_ptq._internal.quantities import parse_duration, parse_max_drop, parse_size, parse_tolerance
from trt_ptq.calibrators.methods import AUTO_CANDIDATES, RangeMethod, range_method
from trt_ptq.choices import (
    BackendName,
    CachePrecision,
    DeviceName,
    Effort,
    HighPrecision,
    Method,
    Mode,
    Nonfinite,
    Target,
    TargetChoice,
    Task,
    Technique,
    TechniqueChoice,
)
from trt_ptq.engines.cost import DEFAULT_GPU, load_gpu
from trt_ptq.errors import UsageError
from trt_ptq.evaluation.verdict import EXCELLENT_BELOW
from trt_ptq.recipe import Recipe
from trt_ptq.types import ShapeProfile

ShapeLike = ShapeProfile | str | Sequence[int] | Sequence[Sequence[int]]

TECHNIQUES: tuple[Technique, ...] = get_args(Technique)
_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": get_args(Mode),
    "kv_cache": get_args(CachePrecision),
    "method": get_args(Method),
    "high_precision": get_args(HighPrecision),
    "nonfinite": get_args(Nonfinite),
    "device": get_args(DeviceName),
    "backend": get_args(BackendName),
    "effort": get_args(Effort),
    "target": (*get_args(Target), "auto"),
}
_FLAGS = ("search", "attention")
_LISTS = ("techniques", "nodes_to_exclude", "nodes_to_include", "tensors", "lower_is_better", "group_columns")
_COUNTS = {"batch_size": 1, "max_length": 2, "samples": 1}  # the least value of each
RTX_NEEDS_FP16 = "`target=rtx` is a form of the model with float16 activations: it needs `high_precision=fp16`"
RECIPE_FIELDS = (
    *("mode", "method", "percentile", "techniques", "attention"),
    *("nodes_to_exclude", "nodes_to_include", "high_precision", "kv_cache", "target"),
)


@dataclass(frozen=True, kw_only=True, repr=False)
class QuantizeConfig:
    """How `quantize` calibrates, tunes, judges and builds. Invalid values are refused when it is created.

    Percentages may be written as text ("1%"), sizes too ("4GB"), and a single name stands for a list of it; the fields
    hold the parsed values. Names of nodes and inputs are checked against the model when `quantize` starts.

    Args:
        mode: "w8a8" (weights and activations in INT8; layers that lose too much are not quantized), "w8a16" (weights
            only, which needs no ranges), or "mixed" (where W8A8 loses too much, kinds of layers get range methods of
            their own, and then layers become W8A16).
        method: range method; "auto" selects the method with the smallest output error on calibration data for the
            whole model.
        percentile: for `method` "percentile" (which it implies): in percent, above 1 and up to 100; 99.99 unless
            given.
        max_drop: accuracy threshold: largest relative loss of a metric against FP32, as "1%" or as a fraction below
            0.1. Without a metric, the largest error of an output, where 0.01 requires 20 dB SQNR, and of scores 99 %
            top-1 agreement.
        techniques: accuracy-recovery techniques that are always applied: "equalization", "rotation",
            "smoothquant", "gptq", "bias-correction". With "auto", a language model gets "rotation" and "smoothquant"
            (unless `mode` is "w8a16") and "gptq", and all others but "rotation" are tried where INT8 does not meet
            `max_drop`. () for none.
        search: where INT8 still does not meet `max_drop`, exclude the most sensitive layers from quantization.
        effort: "low", "medium" or "high": how many candidates are tried where INT8 does not meet
            `max_drop`; see docs/accuracy.md.
        time_limit: seconds, or text such as "90s", "10m" or "2h": when a run has taken that long, no further candidate
            is begun, and the best so far is the result.
        nodes_to_exclude: nodes that are not quantized: node names, names of their outputs, op types, or patterns of
            these with *, ? and [].
        nodes_to_include: if given, only these nodes (named as above) are quantized.
        attention: also quantize the MatMuls of attention, over sequences of up to 512.
        kv_cache: "int8": the cache of keys and values of a language model is INT8, in the graph's inputs and outputs.
        high_precision: what runs around INT8: "fp16" (with FP32 where float16 overflows) or "fp32".
        tensors: which tensors are measured: "fused" (inputs of INT8 nodes), "all" (every float activation), or names.
        nonfinite: NaN and infinity in activations: "refuse", or "skip" (count and report).
        device: where calibration runs: "cpu" or "cuda".
        memory_limit: bytes, or text such as "4GB": calibration stays below, by several passes over the data if need be.
        scratch_limit: bytes, or text such as "4GB", that batches and FP32 outputs may take in the folder for temporary
            files, so that no batch is read or computed twice; a tenth of the free disk unless given.
        until_stable: end calibration when no range has moved by more than this fraction since half as many samples.
        batch_size: for data that does not define its batches.
        task: "text-generation": the model is a causal language model, and the data is text. Implied by `tokenizer`.
        text_column: column of the data that holds the text or the messages of a chat; unless given, "text", "prompt",
            "content" or "messages".
        group_columns: columns, such as the source and the language, of whose values all are sampled; unless given,
            "source", "language" and "lang" where the data has them.
        max_length: cut longer texts into pieces of this many tokens.
        samples: number of texts to calibrate with; unless given, the least that is advised for the model's size: 100
            below 1 billion parameters, 500 below 10 billion, else 1000.
        shapes: optimization profiles by input name or pattern: "1x3x224x224:8x3x224x224:16x3x224x224" (MIN:OPT:MAX),
            one shape, three shapes, or a `ShapeProfile`. From the calibration data unless given.
        backend: engine builder: "trt" (TensorRT), "rtx" (TensorRT for RTX), "auto" (the one that works here), or
            "none" (no engines).
        target: the builder that the INT8 model is meant for: "trt" (TensorRT), "rtx" (TensorRT for RTX, which needs
            convolutions in another form), or "auto" (the one that `backend` builds with; without, TensorRT).
        gpu: the GPU that times are estimated for, where none can measure them: a name such as "rtx4090", or a YAML file
            with its figures; see docs/engine-plans.md.
        require_speedup: how many times as fast as the FP16 engine the INT8 engine must be, such as 1.1; None for any.
        lower_is_better: names of metrics whose lower values are better.
        recipe: a recipe.yaml of an earlier run, or a `Recipe`: the model is quantized by it, and nothing is tuned.

    Raises:
        UsageError: names the parameter and what is allowed.
    """

    mode: Mode = "w8a8"
    method: Method = "auto"
    percentile: float | None = None
    max_drop: float | str = EXCELLENT_BELOW
    techniques: str | Sequence[TechniqueChoice] = ("auto",)
    search: bool = True
    effort: Effort = "medium"
    time_limit: float | str | None = None
    nodes_to_exclude: str | Sequence[str] = ()
    nodes_to_include: str | Sequence[str] = ()
    attention: bool = False
    kv_cache: CachePrecision = "float"
    high_precision: HighPrecision = "fp16"
    tensors: str | Sequence[str] = ("fused",)
    nonfinite: Nonfinite = "refuse"
    device: DeviceName = "cpu"
    memory_limit: int | str | None = None
    scratch_limit: int | str | None = None
    until_stable: float | str | None = None
    batch_size: int = 8
    task: Task | None = None
    text_column: str | None = None
    group_columns: str | Sequence[str] = ()
    max_length: int | None = None
    samples: int | None = None
    shapes: Mapping[str, ShapeLike] = field(default_factory=dict, hash=False)
    backend: BackendName = "auto"
    target: TargetChoice = "auto"
    gpu: str = DEFAULT_GPU
    require_speedup: float | None = None
    lower_is_better: str | Sequence[str] = ()
    recipe: str | os.PathLike[str] | Recipe | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"`{name}` must be True or False, not {getattr(self, name)!r}")
        for name in _LISTS:
            self._set(name, _names(name, getattr(self, name)))
        for name in self.techniques:
            _check_choice("techniques", name, (*TECHNIQUES, "auto"))
        self._set("techniques", tuple(name for name in (*TECHNIQUES, "auto") if name in self.techniques))
        self._set("max_drop", parse_max_drop("max_drop", self.max_drop))
        if self.time_limit is not None:
            self._set("time_limit", parse_duration("time_limit", self.time_limit))
        if self.until_stable is not None:
            self._set("until_stable", parse_tolerance("until_stable", self.until_stable))
        if self.memory_limit is not None:
            self._set("memory_limit", parse_size("memory_limit", self.memory_limit))
            if self.device != "cpu":
                raise UsageError(f"`memory_limit` applies to device cpu, not {self.device}: use smaller batches there")
        if self.scratch_limit is not None:
            self._set("scratch_limit", parse_size("scratch_limit", self.scratch_limit))
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise UsageError(f"`batch_size` must be a whole number of at least 1, not {self.batch_size!r}")
        for name, least in _COUNTS.items():
            _check_count(name, getattr(self, name), least)
        if self.task is not None:
            _check_choice("task", self.task, get_args(Task))
        if not self.tensors:
            raise UsageError('`tensors` must be "fused", "all" or tensor names, and is empty')
        self._set("shapes", parse_shapes(self.shapes))
        load_gpu(self.gpu)
        if self.backend == "none" and self.target != "rtx" and self.gpu != DEFAULT_GPU:
            raise UsageError("`gpu` is for the times of engines, and `backend=none` builds none: omit one of the two")
        self._check_speedup()
        self._check_percentile()
        if self.target == "rtx" and self.high_precision == "fp32":
            raise UsageError(RTX_NEEDS_FP16)
        self._check_recipe()

    def __repr__(self) -> str:
        """Only what differs from the defaults."""
        return f"QuantizeConfig({', '.join(f'{name}={getattr(self, name)!r}' for name in self._given())})"

    @property
    def methods(self) -> tuple[RangeMethod, ...]:
        """The range methods that are compared; one unless `method` is "auto"."""
        return AUTO_CANDIDATES if self.method == "auto" else (range_method(self.method, self.percentile),)

    def _given(self) -> list[str]:
        return [one.name for one in fields(self) if getattr(self, one.name) != getattr(_DEFAULT, one.name)]

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen

    def _check_percentile(self) -> None:
        if self.percentile is None:
            return
        value: Any = self.percentile
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 100:
            raise UsageError(f"`percentile` must be a number above 1 and up to 100, not {value!r}")
        if self.method not in ("auto", "percentile"):
            raise UsageError(f'`percentile` belongs to method "percentile", not to {self.method!r}')
        range_method("percentile", value)
        self._set("method", "percentile")
        self._set("percentile", float(value))

    def _check_speedup(self) -> None:
        required: Any = self.require_speedup
        if required is None:
            return
        if isinstance(required, bool) or not isinstance(required, (int, float)) or not 0 < required < math.inf:
            raise UsageError(f"`require_speedup` must be a number above 0, such as 1.1, not {required!r}")
        if self.backend == "none":
            raise UsageError("`require_speedup` compares engines, and `backend=none` builds none")

    def _check_recipe(self) -> None:
        if self.recipe is None:
            return
        if not isinstance(self.recipe, (str, os.PathLike, Recipe)):
            raise UsageError(f"`recipe` must be a path or a Recipe, not {type(self.recipe).__name__}")
        check_recipe_alone(self.recipe, self._given())


def check_recipe_alone(recipe: str | os.PathLike[str] | Recipe, given: Iterable[str]) -> None:
    """Make sure that none of the fields that are `given` is defined by the recipe as well.

    Raises:
        UsageError: names the first.
    """
    named = "the recipe" if isinstance(recipe, Recipe) else os.fspath(recipe)
    for name in given:
        if name in RECIPE_FIELDS:
            raise UsageError(f"`{name}` is defined by {named} already: edit that, or leave one of the two out")


def parse_shapes(shapes: Mapping[str, ShapeLike]) -> dict[str, ShapeProfile]:
    """Optimization profiles by input name; see `QuantizeConfig`.

    Raises:
        UsageError: another form, or MIN <= OPT <= MAX does not hold.
    """
    if not isinstance(shapes, Mapping):
        raise UsageError(f"`shapes` must map input names to shapes, not be {type(shapes).__name__}")
    return {str(name): _profile(str(name), shape) for name, shape in shapes.items()}


def _profile(name: str, shape: ShapeLike) -> ShapeProfile:
    if isinstance(shape, ShapeProfile):
        return shape
    if isinstance(shape, str):
        return ShapeProfile.parse(shape)
    given: Any = shape
    try:
        shapes = [[int(size) for size in part] for part in (given if isinstance(given[0], Sequence) else [given])]
    except (TypeError, ValueError, IndexError):
        shapes = []
    if len(shapes) not in (1, 3) or not all(shapes) or min(map(min, shapes)) < 0 or not all(part[0] for part in shapes):
        raise UsageError(f"`shapes`: {name!r} must be MIN:OPT:MAX, one shape or three shapes, not {shape!r}")
    return ShapeProfile(tuple(shapes[0]), tuple(shapes[len(shapes) // 2]), tuple(shapes[-1]))


def _check_choice(parameter: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise UsageError(f"`{parameter}` must be one of {', '.join(allowed)}, not {value!r}")


def _check_count(parameter: str, value: object, least: int) -> None:
    optional = parameter != "batch_size"
    if (value is None and optional) or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return
    raise UsageError(f"`{parameter}` must be a whole number of at least {least}, not {value!r}")


def _names(parameter: str, value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"`{parameter}` must be a list of names, not {value!r}")
    return tuple(dict.fromkeys(names))


_DEFAULT = QuantizeConfig()
