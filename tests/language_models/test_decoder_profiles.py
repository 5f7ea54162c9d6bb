"""Shape profiles of a language model agree with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trt_ptq.data.shape_profiles import ShapeObserver, match_profiles
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.decoder_profiles import decoder_profiles
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.onnx_io.load import Model


def test_the_mask_covers_the_cache_and_the_new_tokens(decoder: Model, tmp_path: Path) -> None:
    layout, shapes = decoder_layout(decoder), ShapeObserver()
    samples = [TokenSample(np.arange(length), f"text {length}") for length in (8, 8, 8, 20)]
    for batch in DecoderBatches(decoder.path, layout, samples, tmp_path, 2):
        shapes.observe(batch)
    profiles = decoder_profiles(shapes.seen, decoder.inputs, layout)
    match_profiles(profiles, decoder.inputs)
    ids, mask, past = (profiles[name] for name in ("input_ids", "attention_mask", "past_key_values.1.value"))
    assert (ids.minimum, ids.maximum) == ((1, 1), (2, 20))
    assert (past.minimum[2], past.maximum[2]) == (0, 7)
    for name in ("minimum", "optimum", "maximum"):
        shape = getattr(mask, name)
        assert shape == (getattr(ids, name)[0], getattr(ids, name)[1] + getattr(past, name)[2])
    assert len({profile.optimum[0] for profile in profiles.values()}) == 1
