"""The calibration samples that output errors are measured on: the first few, for a first look, and the others."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trt_ptq.data.sources import InMemorySource
from trt_ptq.data.subset import SampleRange, Subset, evenly_spaced
from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.reference import Reference
from trt_ptq.language_models.decoder import is_decoder
from trt_ptq.onnx_io.load import Model
from trt_ptq.tuning.settings import TuningSettings
from trt_ptq.types import Array, Batch, BatchSource, sample_count

_logger = logging.getLogger("trt_ptq.tuning")
_ROUNDING = 1e-4  # of the largest value: kernels sum in another order for another batch size


@dataclass(frozen=True)
class FewSamples:
    """Samples that differ as much as all do, for they come from batches that are spread over the data.

    Attributes:
        first: those of a first look.
        rest: the others; None if there are no more.
        second: about as many of these as a first look takes.
    """

    first: BatchSource
    rest: BatchSource | None
    second: BatchSource | None


def few_samples(model: Model, reference: Reference, source: BatchSource, settings: TuningSettings) -> FewSamples:
    """Select samples of `source`, of more batches the smaller they are.

    Where the model treats the samples of a batch one by one, they are the first samples of several batches, and a first
    look takes a few samples of each of them; else whole batches. So too where each batch has but a few samples.

    Args:
        model: the float model.
        reference: the same, which is tried on batches of other sizes.
        source: the calibration data.
        settings: constants of tuning.

    Raises:
        DataError: there are no batches.
    """
    batch = next(iter(source), None)
    if batch is None:
        raise DataError("the data has no batches")
    size = sample_count(batch.feeds)
    of_few = math.ceil(settings.output_error_samples / settings.output_error_batches)
    worth = max(size, of_few) if is_decoder(model) else size  # a text is long: eight of them suffice
    has_fixed_batch = any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs)
    divided = None if has_fixed_batch else _divided_batches(source, size, worth, settings)
    if divided is None:
        return _whole_batches(source, worth, settings)
    if _treats_samples_one_by_one(model, reference, batch, (divided.at_first, divided.others)):
        return divided.few_samples()
    return _whole_batches(source, min(worth, of_few), settings)  # what looks like a sample may be a step in time


@dataclass(frozen=True)
class _DividedBatches:
    """Batches of which a first look takes the samples `at_first`, and later ones `others`: start and stop of each."""

    batches: BatchSource
    at_first: tuple[int, int]
    others: tuple[int, int]

    def few_samples(self) -> FewSamples:
        start, stop = self.others
        second = SampleRange(self.batches, start, min(2 * start, stop))
        return FewSamples(SampleRange(self.batches, *self.at_first), SampleRange(self.batches, start, stop), second)


def _divided_batches(source: BatchSource, size: int, worth: int, settings: TuningSettings) -> _DividedBatches | None:
    """As many samples of each batch; None where batches are too small for that, or too many would be needed."""
    batches = _number_of_batches(source, worth, settings)
    of_each = min(math.ceil(settings.output_error_samples / batches), size)
    first = math.ceil(settings.first_look_samples / batches)
    if first >= of_each or batches > settings.first_look_samples:
        return None
    return _DividedBatches(evenly_spaced(source, batches), (0, first), (first, of_each))


def _whole_batches(source: BatchSource, worth: int, settings: TuningSettings) -> FewSamples:
    """Every so many batches at first, the others later."""
    enough = max(math.ceil(settings.output_error_samples / worth), settings.first_look_batches)
    batches = min(_number_of_batches(source, worth, settings), enough)
    chosen = evenly_spaced(source, batches)
    most_at_first = max(math.ceil(settings.first_look_samples / worth), settings.first_look_batches)
    period = math.ceil(batches / most_at_first)
    if period == 1:
        return FewSamples(chosen, None, None)
    offsets = tuple(range(1, period))
    return FewSamples(Subset(chosen, period), Subset(chosen, period, offsets), Subset(chosen, period, offsets[:1]))


def _number_of_batches(source: BatchSource, worth: int, settings: TuningSettings) -> int:
    """How many batches have enough samples, if each counts as `worth` of them; all where the source has fewer."""
    batches = math.ceil(settings.output_error_samples / worth)
    if batches <= settings.output_error_batches:
        batches = settings.output_error_batches
    else:  # few samples each: a first look takes one of each
        batches = max(batches, settings.first_look_samples)
    return batches if source.total is None else min(batches, source.total)


def _treats_samples_one_by_one(
    model: Model, reference: Reference, batch: Batch, parts: Sequence[tuple[int, int]]
) -> bool:
    """Whether the model runs on `parts` of a batch, ranges of its samples, with the outputs that the batch gives there.

    A first axis of time or of tokens is no axis of samples, though the outputs may have as many rows.
    """
    if is_decoder(model):  # their export has a dynamic batch, and their outputs are large
        return True
    try:
        with reference.outputs() as outputs:
            whole = outputs(batch)
            for start, stop in parts:
                for part in SampleRange(InMemorySource([batch]), start, stop):
                    of_part = outputs(part)
                    if not all(_are_rows(of_part[name], array, start, stop) for name, array in whole.items()):
                        _logger.info("output errors are measured on whole batches: samples depend on the others there")
                        return False
    except (DataError, ModelError) as error:
        _logger.info("output errors are measured on whole batches, as the model takes no others: %s", error)
        return False
    return True


def _are_rows(part: Array, whole: Array, start: int, stop: int) -> bool:
    """Whether `part` is the rows `start` to `stop` of `whole`, up to the rounding of floats."""
    rows = whole[start:stop] if whole.ndim else whole
    if not whole.ndim or part.shape != rows.shape:
        return False
    if rows.dtype.kind != "f":
        return np.array_equal(part, rows)
    largest = np.abs(rows, where=np.isfinite(rows), out=np.zeros_like(rows)).max(initial=0)
    return np.allclose(part, rows, rtol=0, atol=_ROUNDING * float(largest), equal_nan=True)
