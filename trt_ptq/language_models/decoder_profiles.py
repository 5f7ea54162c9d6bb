"""Shape profiles of a language model, whose inputs depend on each other."""

from __future__ import annotations

from trt_ptq.data.shape_profiles import Shapes, profiles_from_shapes
from trt_ptq.language_models.decoder import ATTENTION_MASK, INPUT_IDS, PAST_AXIS, DecoderLayout
from trt_ptq.types import ShapeProfile, TensorSpec

Shape = tuple[int, ...]


def decoder_profiles(seen: Shapes, inputs: tuple[TensorSpec, ...], layout: DecoderLayout) -> dict[str, ShapeProfile]:
    """Profiles by input for prefill and decode, from the shapes that were `seen` in both.

    The optimum of all inputs has the batch of the most frequent `input_ids`. The attention mask covers the tokens in
    the cache and the new ones.
    """
    profiles = profiles_from_shapes(seen, inputs)
    batch = profiles[INPUT_IDS].optimum[0]
    for name, profile in profiles.items():
        profiles[name] = ShapeProfile(profile.minimum, (batch, *profile.optimum[1:]), profile.maximum)
    if ATTENTION_MASK in profiles:
        ids, past = profiles[INPUT_IDS], profiles[layout.cache[0].past]
        profiles[ATTENTION_MASK] = ShapeProfile(
            _mask(ids.minimum, past.minimum), _mask(ids.optimum, past.optimum), _mask(ids.maximum, past.maximum)
        )
    return profiles


def _mask(ids: Shape, past: Shape) -> Shape:
    return ids[0], ids[1] + past[PAST_AXIS]
