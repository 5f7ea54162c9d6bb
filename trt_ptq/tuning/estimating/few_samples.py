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
    counted = max(size, of_few) if is_decoder(model) else size  # a text is long: eight of them suffice
    batches = max(settings.output_error_batches, math.ceil(settings.output_error_samples / counted))
    if batches > settings.output_error_batches:  # few samples each: one of each is a first look then
        batches = max(batches, settings.first_look_samples)
    batches = batches if source.total is None else min(batches, source.total)
    of_each = min(math.ceil(settings.output_error_samples / batches), size)
    first = math.ceil(settings.first_look_samples / batches)
    at_first, others = (0, first), (first, of_each)
    is_fixed = any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs)
    if not is_fixed and first < of_each and batches <= settings.first_look_samples:
        if _treats_samples_one_by_one(model, reference, batch, (at_first, others)):
            chosen = evenly_spaced(source, batches)
            second = SampleRange(chosen, first, min(2 * first, of_each))
            return FewSamples(SampleRange(chosen, *at_first), SampleRange(chosen, *others), second)
        counted = min(counted, of_few)  # what looks like a sample may be a step in time
    batches = min(batches, max(math.ceil(settings.output_error_samples / counted), settings.first_look_batches))
    chosen = evenly_spaced(source, batches)
    most_at_first = max(math.ceil(settings.first_look_samples / counted), settings.first_look_batches)
    period = math.ceil(batches / most_at_first)
    if period == 1:
        return FewSamples(chosen, None, None)
    offsets = tuple(range(1, period))
    return FewSamples(Subset(chosen, period), Subset(chosen, period, offsets), Subset(chosen, period, offsets[:1]))


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
