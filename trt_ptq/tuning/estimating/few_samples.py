"""The calibration samples that output errors are measured on: the first few, for a first look, and the others."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from trt_ptq.data.subset import SampleRange, Subset, evenly_spaced
from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation.reference import Reference
from trt_ptq.language_models.decoder import is_decoder
from trt_ptq.onnx_io.load import Model
from trt_ptq.tuning.settings import TuningSettings
from trt_ptq.types import BatchSource, sample_count

_logger = logging.getLogger("trt_ptq.tuning")


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
    """Select samples of `source`.

    Where the model takes batches of any size, they are the first samples of several batches, and a first look takes a
    few samples of each of them; else whole batches.

    Args:
        model: the float model.
        reference: the same, which is tried on a batch of another size.
        source: the calibration data.
        settings: constants of tuning.

    Raises:
        DataError: there are no batches.
    """
    size = sample_count(next(iter(source)).feeds)
    batches = min(settings.output_error_batches, source.total or settings.output_error_batches)
    of_each = min(math.ceil(settings.output_error_samples / batches), size)
    first = math.ceil(settings.first_look_samples / batches)
    chosen = evenly_spaced(source, batches)
    if first < of_each and _takes_any_number(model, reference, SampleRange(chosen, 0, first)):
        second = SampleRange(chosen, first, min(2 * first, of_each))
        return FewSamples(SampleRange(chosen, 0, first), SampleRange(chosen, first, of_each), second)
    batches = min(batches, max(math.ceil(settings.output_error_samples / size), settings.first_look_batches))
    chosen = evenly_spaced(source, batches)
    period = math.ceil(batches / settings.first_look_batches)
    if period == 1:
        return FewSamples(chosen, None, None)
    others = tuple(range(1, period))
    return FewSamples(Subset(chosen, period), Subset(chosen, period, others), Subset(chosen, period, others[:1]))


def _takes_any_number(model: Model, reference: Reference, fewer: BatchSource) -> bool:
    """Whether the model runs on `fewer` samples than the data has, and the first axis of its outputs is the sample."""
    if any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs):
        return False
    if is_decoder(model):  # their export has a dynamic batch, and their outputs are large
        return True
    batch = next(iter(fewer))
    try:
        with reference.outputs() as outputs:
            found = outputs(batch).values()
    except (DataError, ModelError) as error:
        _logger.info("output errors are measured on whole batches, as the model takes no others: %s", error)
        return False
    return all(array.ndim and len(array) == sample_count(batch.feeds) for array in found)
