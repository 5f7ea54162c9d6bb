"""Recognises an exported causal language model by the names of its inputs and outputs, and feeds it.

The layout is that of Hugging Face Optimum: input_ids, attention_mask and position_ids (both optional), and for each
layer N past_key_values.N.key and past_key_values.N.value; logits, present.N.key and present.N.value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Array, TensorSpec

INPUT_IDS, ATTENTION_MASK, POSITION_IDS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"
PAST_AXIS = 2  # of a cache tensor: [samples, heads, tokens, head size]

_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_HOW_TO_EXPORT = (
    "give the Hugging Face folder, which trt_ptq exports, or export it by `optimum-cli export onnx --task "
    "text-generation-with-past`"
)


@dataclass(frozen=True)
class CacheTensor:
    """The key or the value cache of a layer: its input and its output, and their shape beside samples and tokens."""

    past: str
    present: str
    dtype: np.dtype[np.generic]
    num_heads: int
    head_size: int

    @property
    def names(self) -> tuple[str, str]:
        """The names of the input and the output."""
        return self.past, self.present

    @property
    def is_value(self) -> bool:
        """Whether it holds values, not keys."""
        return self.past.endswith(".value")

    def empty(self, samples: int) -> Array:
        """The cache before the first token: [samples, heads, 0, head size]."""
        return np.zeros((samples, self.num_heads, 0, self.head_size), self.dtype)


@dataclass(frozen=True)
class DecoderLayout:
    """The inputs and outputs of a causal language model with a key-value cache.

    Attributes:
        cache: the cache tensors, two for each layer: key, value, key, value, …
        vocabulary: number of tokens that the logits score; None if the export leaves it dynamic.
        ids_dtype: dtype of `input_ids`, `attention_mask` and `position_ids`.
        inputs: names of all inputs, in order.
    """

    cache: tuple[CacheTensor, ...]
    vocabulary: int | None
    ids_dtype: np.dtype[np.generic]
    inputs: tuple[str, ...]

    @property
    def num_layers(self) -> int:
        """Number of layers that have a cache."""
        return len(self.cache) // 2

    def feeds(self, ids: Array, past: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """The inputs of one call: `ids` follow the tokens that the cache holds. No token is masked.

        Args:
            ids: tokens [samples, sequence].
            past: the cache, by name of the input; None at the first call.
        """
        samples, length = ids.shape
        past = past or {tensor.past: tensor.empty(samples) for tensor in self.cache}
        filled = past[self.cache[0].past].shape[PAST_AXIS]
        positions = np.arange(filled, filled + length, dtype=self.ids_dtype)
        feeds = {
            INPUT_IDS: ids.astype(self.ids_dtype),
            ATTENTION_MASK: np.ones((samples, filled + length), self.ids_dtype),
            POSITION_IDS: np.tile(positions, (samples, 1)),
            **past,
        }
        return {name: feeds[name] for name in self.inputs}

    def past(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """The cache for the next call, by name of the input: the outputs of this one."""
        return {tensor.past: outputs[tensor.present] for tensor in self.cache}


def num_past_tokens(feeds: Mapping[str, Array]) -> int:
    """Number of tokens in the cache that a call continues; 0 without a cache, or for another kind of model."""
    if INPUT_IDS not in feeds:
        return 0
    return max((array.shape[PAST_AXIS] for array in feeds.values() if array.ndim > PAST_AXIS), default=0)


def is_decoder(model: Model) -> bool:
    """Whether `model` scores every token of its vocabulary at every position, with a cache or without.

    Classifiers of texts or of words have `input_ids` and `logits` too, but other classes than tokens.
    """
    if not _has_ids_and_logits(model):
        return False
    return any(_PAST.fullmatch(spec.name) for spec in model.inputs) or _scores_tokens(model)


def decoder_layout(model: Model, name: str | Path | None = None) -> DecoderLayout:
    """Recognise the layout of `model`, which messages call `name` (default: its path).

    Raises:
        ModelError: not a language model, exported without a cache, or with one of another form.
    """
    name = name or model.path
    by_name = {spec.name: spec for spec in model.inputs}
    if not _has_ids_and_logits(model):
        raise ModelError(
            f"{name}: not an exported language model: it needs an input {INPUT_IDS!r} and an output {LOGITS!r}, and "
            f"has {', '.join(by_name)} and {', '.join(model.outputs)}"
        )
    past = [spec for spec in model.inputs if _PAST.fullmatch(spec.name)]
    if not past:
        raise ModelError(
            f"{name}: exported without past: it has no inputs past_key_values.N.key, so it computes every token "
            f"again at each step: {_HOW_TO_EXPORT}"
        )
    others = by_name.keys() - {INPUT_IDS, ATTENTION_MASK, POSITION_IDS} - {spec.name for spec in past}
    if others:
        raise ModelError(f"{name}: has the input {min(others)!r}, which is not in Optimum's layout: {_HOW_TO_EXPORT}")
    return DecoderLayout(
        cache=tuple(_cache_tensor(model, spec, name) for spec in _in_layer_order(past, name)),
        vocabulary=_vocabulary(model),
        ids_dtype=by_name[INPUT_IDS].dtype,
        inputs=tuple(by_name),
    )


def _in_layer_order(past: list[TensorSpec], name: str | Path) -> list[TensorSpec]:
    by_name = {spec.name: spec for spec in past}
    order = [f"past_key_values.{layer}.{part}" for layer in range(len(past) // 2) for part in ("key", "value")]
    missing = [expected for expected in order if expected not in by_name]
    if missing or len(order) != len(past):
        raise ModelError(
            f"{name}: the cache is incomplete: {missing[0] if missing else 'a key or a value'} is missing among "
            f"{len(past)} inputs past_key_values: {_HOW_TO_EXPORT}"
        )
    return [by_name[expected] for expected in order]


def _cache_tensor(model: Model, spec: TensorSpec, name: str | Path) -> CacheTensor:
    present = spec.name.replace("past_key_values", "present")
    if present not in model.outputs:
        raise ModelError(f"{name}: input {spec.name!r} has no output {present!r}: {_HOW_TO_EXPORT}")
    if len(spec.shape) == 4:
        samples, heads, tokens, size = spec.shape
        if isinstance(samples, str) and isinstance(heads, int) and isinstance(tokens, str) and isinstance(size, int):
            return CacheTensor(spec.name, present, spec.dtype, heads, size)
    raise ModelError(
        f"{name}: input {spec} is not [samples, heads, tokens, head size] with dynamic samples and tokens: "
        f"{_HOW_TO_EXPORT}"
    )


def _has_ids_and_logits(model: Model) -> bool:
    return INPUT_IDS in {spec.name for spec in model.inputs} and LOGITS in model.outputs


def _scores_tokens(model: Model) -> bool:
    """Whether the logits are [samples, tokens, vocabulary], with as many tokens as the largest embedding has rows."""
    matrices = {tensor.name: tensor.dims[0] for tensor in model.proto.graph.initializer if len(tensor.dims) == 2}
    rows = [matrices.get(node.input[0], 0) for node in model.proto.graph.node if node.op_type == "Gather"]
    (logits,) = (value for value in model.proto.graph.output if value.name == LOGITS)
    return len(logits.type.tensor_type.shape.dim) == 3 and _vocabulary(model) == max(rows, default=0)


def _vocabulary(model: Model) -> int | None:
    (logits,) = (value for value in model.proto.graph.output if value.name == LOGITS)
    dimensions = logits.type.tensor_type.shape.dim
    return dimensions[-1].dim_value or None if dimensions else None
