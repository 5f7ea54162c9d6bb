"""A torch module with the cache as plain inputs and outputs, around a Hugging Face model, whose cache is an object."""

from __future__ import annotations

import inspect
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq._internal.packages.torch_messages import first_cause
from trt_ptq.errors import ModelError


def decoder_module(torch: Any, model: Any, name: str) -> tuple[Any, list[tuple[int, int]]]:
    """The module, and the number of heads and the head size of each layer's cache.

    The module is called with `input_ids`, `attention_mask`, `position_ids`, and `past`, a list of (key, value); it
    returns the logits, and such a list with the new tokens.

    Raises:
        ModelError: the model does not run, or a layer keeps no keys and values (recurrent or linear attention layers).
    """
    cache_utils = require("transformers.cache_utils", extra="llm")
    parameters = inspect.signature(model.forward).parameters
    cache_name = "cache" if "cache" in parameters else "past_key_values"  # renamed in transformers 5

    def filled_cache(past: Any) -> Any:
        cache = cache_utils.DynamicCache()
        cache.layers = [cache_utils.DynamicLayer() for _ in past]
        for layer, (keys, values) in zip(cache.layers, past, strict=True):
            layer.keys, layer.values = keys, values
            layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        return cache

    class Decoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.decoder = model

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, past: Any) -> Any:
            cache = filled_cache(past)
            arguments = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
            outputs = self.decoder(**arguments, **{cache_name: cache}, use_cache=True)
            return outputs.logits, [(layer.keys, layer.values) for layer in cache.layers]

    module = Decoder()
    module.training = False
    cache = cache_utils.DynamicCache()
    ids = torch.ones((1, 2), dtype=torch.int64)
    try:
        model(input_ids=ids, **{cache_name: cache}, use_cache=True)
    except Exception as error:  # whatever the model's code raises
        raise ModelError(
            f"{name}: {type(model).__name__} does not run with a key-value cache ({type(error).__name__}: "
            f"{first_cause(error)}): only decoders whose layers keep keys and values can be exported"
        ) from error
    without_keys = [index for index, layer in enumerate(cache.layers) if getattr(layer, "keys", None) is None]
    if without_keys or not cache.layers:
        which = f"layer {without_keys[0]}" if without_keys else "its layers"
        raise ModelError(
            f"{name}: {type(model).__name__} cannot be exported: {which} keeps no keys and values (recurrent or linear "
            "attention layers are not supported)"
        )
    return module, [(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers]
