"""Calibration batches of a language model: prefill, and decode steps with a filled cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.decoders import VOCABULARY
from trt_ptq.api.calibrating import calibrate
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.errors import DataError
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import DecoderLayout, decoder_layout
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import load_session
from trt_ptq.types import Batch


@pytest.fixture
def layout(decoder: Model) -> DecoderLayout:
    return decoder_layout(decoder)


def texts(*lengths: int) -> list[TokenSample]:
    random = np.random.default_rng(0)
    return [TokenSample(random.integers(0, VOCABULARY, length), f"text {i}") for i, length in enumerate(lengths)]


def source(decoder: Model, samples: Sequence[TokenSample], folder: Path, batch_size: int = 4) -> DecoderBatches:
    return DecoderBatches(decoder.path, decoder_layout(decoder), samples, folder, batch_size)


def shapes(batches: Sequence[Batch]) -> list[tuple[int, int, int]]:
    """Samples, new tokens and tokens in the cache of each batch."""
    return [(*batch.feeds["input_ids"].shape, batch.feeds["past_key_values.0.key"].shape[2]) for batch in batches]


def test_texts_of_one_length_share_a_batch_and_some_groups_decode(decoder: Model, tmp_path: Path) -> None:
    batches = list(source(decoder, texts(8, 12, 8, 8, 8, 8), tmp_path))
    assert shapes(batches) == [(4, 8, 0), (4, 1, 4), (4, 1, 7), (1, 12, 0), (1, 8, 0)]
    assert batches[2].origin == "text 0 and 3 more, decode at token 7"


def test_the_cache_is_the_one_that_the_model_fills(decoder: Model, layout: DecoderLayout, tmp_path: Path) -> None:
    samples = texts(8)
    _, half, last = source(decoder, samples, tmp_path)
    session = load_session(decoder.path, "tiny")
    (expected,) = session.run(["present.1.value"], layout.feeds(samples[0].ids[None]))
    np.testing.assert_allclose(half.feeds["past_key_values.1.value"], expected[:, :, :4], atol=1e-6)
    np.testing.assert_allclose(last.feeds["past_key_values.1.value"], expected[:, :, :7], atol=1e-6)
    assert last.feeds["position_ids"].tolist() == [[7]]
    assert last.feeds["attention_mask"].tolist() == [[1] * 8]


def test_every_pass_and_every_index_yields_the_same(decoder: Model, tmp_path: Path) -> None:
    batches = source(decoder, texts(8, 5, 8), tmp_path)
    first, second = list(batches), [batches.batch(index) for index in range(batches.total)]
    for one, other in zip(first, second, strict=True):
        assert one.origin == other.origin
        for name, array in one.feeds.items():
            assert np.array_equal(array, other.feeds[name])


def test_only_some_of_many_groups_decode(decoder: Model, tmp_path: Path) -> None:
    batches = source(decoder, texts(*[6] * 400), tmp_path, batch_size=1)
    assert batches.total <= 400 + 2 * 16


def test_a_batch_of_long_texts_holds_fewer(decoder: Model, tmp_path: Path) -> None:
    lengths = [shape[:2] for shape in shapes(list(source(decoder, texts(*[100] * 30), tmp_path, 64))) if shape[1] > 1]
    assert lengths == [(10, 100)] * 3


def test_a_text_of_one_token_is_prefill_only(decoder: Model, tmp_path: Path) -> None:
    assert shapes(list(source(decoder, texts(1), tmp_path))) == [(1, 1, 0)]


def test_they_calibrate_the_past_beside_everything_else(decoder: Model, tmp_path: Path) -> None:
    batches = source(decoder, texts(*[8] * 8, 12), tmp_path)
    list(ValidatedSource(batches, decoder.inputs))
    statistics = calibrate(decoder, batches, tensors="all", attention=True)
    assert statistics.tensors["present.0.key"].count == (8 * 8 + 12 + 4 * (5 + 8)) * 2 * 16
    assert statistics.tensors["model.layers.1.mlp.down_proj"].count == (8 * 8 + 12 + 4 * 2) * 64


def test_no_texts_are_refused(decoder: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no texts"):
        source(decoder, [], tmp_path)


def test_a_shard_fills_only_the_caches_that_it_reads(decoder: Model, tmp_path: Path) -> None:
    whole = source(decoder, texts(*range(8, 17)), tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    (tmp_path / "part").mkdir()
    part = source(decoder, texts(*range(8, 17)), tmp_path / "part").for_shard(0, whole.total - 1)
    assert [len(list((tmp_path / name).rglob("*.npz"))) for name in ("whole", "part")] == [0, 0]
    for batches, indices in ((whole, range(whole.total)), (part, (0, whole.total - 1))):
        for index in indices:
            batches.batch(index)
    assert [len(list((tmp_path / name).rglob("*.npz"))) for name in ("whole", "part")] == [3, 1]
