"""Decoders are judged by their next token: in tuning and in the ranking of layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.decoders import VOCABULARY
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.data.sources import InMemorySource
from trt_ptq.evaluation.reference import Reference
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.judging.next_token import kl_divergence, short_texts
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.sensitivity.measure import measure_sensitivity, rank_layers
from trt_ptq.tuning.estimating.few_samples import FewSamples
from trt_ptq.tuning.estimating.output_deviation import DeviationSums, OutputDeviation
from trt_ptq.types import Batch

LENGTHS = (40, 40, 24, 150)


@pytest.fixture
def batches(decoder: Model, tmp_path: Path) -> DecoderBatches:
    random = np.random.default_rng(0)
    samples = [TokenSample(random.integers(0, VOCABULARY, length), f"text {length}") for length in LENGTHS]
    return DecoderBatches(decoder.path, decoder_layout(decoder), samples, tmp_path, batch_size=2)


@pytest.fixture
def table(decoder: Model, batches: DecoderBatches) -> CalibrationTable:
    return derive_table(collect_statistics(decoder, batches, select_calibration_tensors(decoder)), METHODS["minmax"])


def test_the_divergence_is_that_of_its_definition() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    expected = float((p * np.log(p / q)).sum())
    assert kl_divergence(np.log(p)[None, None], np.log(q)[None, None] + 7) == pytest.approx([expected])


def test_short_texts_are_prefills_of_one_sample(batches: DecoderBatches) -> None:
    feeds = [batch.feeds for batch in short_texts(batches, 8)]
    assert [batch["input_ids"].shape for batch in feeds] == [(1, 40), (1, 24), (1, 128)]
    assert all(batch["attention_mask"].shape == batch["input_ids"].shape for batch in feeds)
    assert all(batch["past_key_values.0.key"].shape[2] == 0 for batch in feeds)


def test_an_input_without_tokens_stays_as_it_is(batches: DecoderBatches) -> None:
    with_option = [Batch({**batch.feeds, "num_logits_to_keep": np.array(7)}, batch.origin) for batch in batches]
    feeds = [batch.feeds for batch in short_texts(InMemorySource(with_option), 2)]
    assert [int(batch["num_logits_to_keep"]) for batch in feeds] == [7] * len(feeds)


def test_the_cache_does_not_count(decoder: Model, batches: DecoderBatches, table: CalibrationTable) -> None:
    deviation = OutputDeviation(decoder, Reference(decoder.path), FewSamples(batches, batches, None), batches, 2)
    assert deviation.measure(decoder.to_ir(), DeviationSums()) == [0, 0]
    int8 = insert_qdq(decoder, table).model
    plain = deviation.measure(int8, DeviationSums())
    assert 0 < plain[0] < 1
    for value in int8.graph.outputs:
        if value.name == "present.1.value":  # as in `x * 1e6`: another cache, the same next token
            scale = ir.Value(name="wrong", const_value=ir.tensor(np.float32(1e6)))
            int8.graph.register_initializer(scale)
            wrong = ir.node("Mul", [value, scale])
            int8.graph.append(wrong)
            int8.graph.outputs[list(int8.graph.outputs).index(value)] = wrong.outputs[0]
            value.name, wrong.outputs[0].name = "kept", "present.1.value"
            break
    assert deviation.measure(int8, DeviationSums()) == pytest.approx(plain)


def test_layers_are_ranked_by_the_divergence(decoder: Model, batches: DecoderBatches, table: CalibrationTable) -> None:
    errors = rank_layers(decoder, table, batches).errors
    layers = {layer.node: layer for layer in measure_sensitivity(decoder, table, batches)}
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert {name: layers[name].alone for name in errors} == pytest.approx(errors)
    k_proj = next(name for name in errors if "k_proj" in name)
    assert errors[k_proj] > 0  # the last layer's keys reach the logits through the cache tensors
    assert max(errors.values()) < 0.1
