"""The memory that text takes: that of a batch, however many texts there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.decoders import VOCABULARY, WINDOW
from trt_ptq._internal.hardware.process_memory import PeakMemory
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.onnx_io.load import Model

_TEXTS = 4 * 16 * 8  # with this many, as many groups decode as ever do
_SLACK = 20_000_000


def peak_bytes(decoder: Model, texts: int, folder: Path) -> int:
    """The peak while as many texts are calibrated with, caches of decode steps included."""
    random = np.random.default_rng(0)
    samples = [TokenSample(random.integers(0, VOCABULARY, WINDOW), f"text {index}") for index in range(texts)]
    batches = DecoderBatches(decoder.path, decoder_layout(decoder), samples, folder)
    tensors = select_calibration_tensors(decoder, ["all"])
    memory = PeakMemory()
    collect_statistics(decoder, batches, tensors)
    return memory.peak_bytes()


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_texts(decoder: Model, tmp_path: Path) -> None:
    peak_bytes(decoder, 8, tmp_path)  # loads and compiles what is needed
    few, many = (peak_bytes(decoder, texts, tmp_path) for texts in (_TEXTS // 4, _TEXTS))
    kept = 4 * (_TEXTS - _TEXTS // 4) * WINDOW * VOCABULARY  # bytes of the logits of the further texts, were they kept
    assert many < few + _SLACK
    assert kept / 2 > _SLACK
