"""Text for a language model: opened, drawn, split into calibration and held-out parts, and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trt_ptq.errors import DataError
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import DecoderLayout, decoder_layout
from trt_ptq.language_models.judging.metric import LanguageModelMetric
from trt_ptq.language_models.judging.perplexity import TextWindow
from trt_ptq.language_models.text.holding_out import HELD_OUT_PERIOD, hold_out
from trt_ptq.language_models.text.near_duplicates import without_near_duplicates
from trt_ptq.language_models.text.prompts import read_prompts
from trt_ptq.language_models.text.samples import TokenSample, check_max_length, tokenize
from trt_ptq.language_models.text.sampling import draw_samples
from trt_ptq.language_models.text.text_audit import TextAudit, advised_samples, audit_text
from trt_ptq.language_models.text.tokenizer import TextTokenizer
from trt_ptq.onnx_io.load import Model

_MAX_SELECT_WINDOWS = 32  # each candidate is scored on; of 256 tokens, losses of perplexity have errors of 0.15 points
_MAX_TEST_WINDOWS = 64  # each of 256 tokens takes SmolLM2-135M a quarter of a second on two cores
_MAX_COMPARED = 8  # texts whose outputs are compared: a position has as many logits as there are tokens


@dataclass(frozen=True)
class TextOptions:
    """How text is read and drawn; see `QuantizeConfig`."""

    text_column: str | None = None
    group_columns: Sequence[str] = ()
    max_length: int | None = None
    samples: int | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class LanguageData:
    """Text for a language model.

    Attributes:
        layout: inputs and outputs of the model.
        tokenizer: what made tokens of the text.
        calibration: batches to calibrate with.
        held_out: batches whose outputs are compared.
        select: held-out windows that candidates are selected on.
        test: held-out windows for the verdict.
        audit: what the text consists of.
    """

    layout: DecoderLayout
    tokenizer: TextTokenizer
    calibration: DecoderBatches
    held_out: DecoderBatches
    select: tuple[TextWindow, ...]
    test: tuple[TextWindow, ...]
    audit: TextAudit

    @property
    def metric(self) -> LanguageModelMetric:
        """Perplexity on the held-out text."""
        return LanguageModelMetric(self.layout, self.select, self.test)

    @property
    def selects_on_test(self) -> bool:
        """Whether the verdict is on the text that candidates are selected on: a single text was held out."""
        return self.select[0] is self.test[0]


@dataclass(frozen=True)
class CalibrationText:
    """Text that is only calibrated with: its `batches` and `audit`."""

    batches: DecoderBatches
    audit: TextAudit


def open_calibration_text(
    model: Model, name: str, data: Any, tokenizer: TextTokenizer, options: TextOptions, folder: Path
) -> CalibrationText:
    """Read and draw text as `open_text` does, and hold none out.

    Raises:
        DataError, ModelError, UsageError: see `open_text`.
    """
    pool = _read_pool(model, name, data, tokenizer, options)
    samples = draw_samples(pool.unique, pool.count)
    batches = DecoderBatches(model.path, pool.layout, samples, folder, options.batch_size)
    return CalibrationText(batches, pool.audit(samples, []))


def open_text(
    model: Model, name: str, data: Any, test_data: Any, tokenizer: TextTokenizer, options: TextOptions, folder: Path
) -> LanguageData:
    """Read text, make tokens of it, drop near-duplicates, draw samples, and split them.

    Args:
        model: the FP32 model, a decoder with a cache.
        name: what messages call the model.
        data: text to calibrate with; see `read_prompts`.
        test_data: text to evaluate on; without it, about a fifth of those that are drawn; see `hold_out`.
        tokenizer: the tokenizer of the model.
        options: how to read and draw.
        folder: where filled caches are kept.

    Raises:
        DataError: the text cannot be read, is too long or too little, or the tokenizer does not fit the model.
        ModelError: the model is no decoder with a cache.
        UsageError: `max_length` exceeds the model's window.
    """
    pool = _read_pool(model, name, data, tokenizer, options)
    if test_data is None:
        drawn = draw_samples(pool.unique, math.ceil(pool.count * HELD_OUT_PERIOD / (HELD_OUT_PERIOD - 1)))
        calibration, held_out = hold_out(drawn)
        if not held_out:
            raise DataError(f"the data has a single text{_cut_hint(options)}: give more texts, or `test_data`")
    else:
        test_options = replace(options, group_columns=())  # all of it is used, so it needs no groups
        calibration, held_out = draw_samples(pool.unique, pool.count), _tokens(test_data, tokenizer, test_options)
    windows = _evenly([TextWindow(sample.ids) for sample in held_out], 2 * _MAX_TEST_WINDOWS)
    layout = pool.layout
    batches = DecoderBatches(model.path, layout, calibration, folder, options.batch_size)
    compared = DecoderBatches(model.path, layout, _evenly(held_out, _MAX_COMPARED), folder, batch_size=1)
    for source in (batches, compared):
        source.fill_caches()
    return LanguageData(
        layout=layout,
        tokenizer=tokenizer,
        calibration=batches,
        held_out=compared,
        select=_in_random_order(_evenly(windows[::2], _MAX_SELECT_WINDOWS)),
        test=tuple(windows[1::2] or windows),
        audit=pool.audit(calibration, held_out),
    )


@dataclass(frozen=True)
class _Pool:
    """The texts to draw from: `unique` of `read` ones; and how many to calibrate with."""

    layout: DecoderLayout
    parameters: int
    read: int
    unique: list[TokenSample]
    count: int

    def audit(self, calibration: Sequence[TokenSample], held_out: Sequence[TokenSample]) -> TextAudit:
        dropped = self.read - len(self.unique)
        return audit_text(self.read, dropped, calibration, held_out, self.parameters, self.layout.vocabulary)


def _read_pool(model: Model, name: str, data: Any, tokenizer: TextTokenizer, options: TextOptions) -> _Pool:
    layout = decoder_layout(model, name)
    tokenizer.check_fits(layout.vocabulary, name)
    check_max_length(options.max_length, tokenizer.window)
    everything = _tokens(data, tokenizer, options)
    unique = without_near_duplicates(everything)
    parameters = sum(math.prod(tensor.dims) for tensor in model.proto.graph.initializer)
    return _Pool(layout, parameters, len(everything), unique, options.samples or advised_samples(parameters)[0])


def _tokens(data: Any, tokenizer: TextTokenizer, options: TextOptions) -> list[TokenSample]:
    return tokenize(read_prompts(data, options.text_column, options.group_columns), tokenizer, options.max_length)


def _cut_hint(options: TextOptions) -> str:
    return " (long texts are cut into pieces by `max_length`)" if options.max_length is None else ""


def _in_random_order(windows: Sequence[TextWindow]) -> tuple[TextWindow, ...]:
    """`windows`, mixed, as a candidate is given up by the first few of them; see `PairedTest`."""
    return tuple(windows[index] for index in np.random.default_rng(0).permutation(len(windows)).tolist())


def _evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Up to `count` items, evenly spaced."""
    taken = min(count, len(items))
    return [items[index * len(items) // taken] for index in range(taken)]
