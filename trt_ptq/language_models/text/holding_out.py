"""Holds out samples for the evaluation, without splitting a document between calibration and evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trt_ptq.language_models.text.samples import TokenSample

HELD_OUT_PERIOD = 5  # one sample in five is held out


def hold_out(samples: Sequence[TokenSample]) -> tuple[list[TokenSample], list[TokenSample]]:
    """Split samples into those to calibrate with, and about one in five for the evaluation.

    All pieces of a document are on one side, since its style, names and topics are. Of a single document, the last
    pieces are held out: one contiguous part.

    Args:
        samples: the samples, in random order.

    Returns:
        The calibration samples and those held out, each in the given order; none are held out of a single sample.
    """
    sizes: dict[int, int] = {}
    for sample in samples:
        sizes[sample.document] = sizes.get(sample.document, 0) + 1
    wanted = math.ceil((len(samples) - 1) / HELD_OUT_PERIOD)
    if len(sizes) == 1:
        last = sorted(sample.piece for sample in samples)[len(samples) - wanted :]
        return _split(samples, [sample.piece in last for sample in samples])
    held_out = _choose(sizes, wanted)
    return _split(samples, [sample.document in held_out for sample in samples])


def _choose(sizes: dict[int, int], wanted: int) -> set[int]:
    """Documents of at most `wanted` samples together, or else the one with the fewest samples."""
    documents = list(sizes)
    chosen: set[int] = set()
    for document in (*documents[1::HELD_OUT_PERIOD], *documents):
        if document not in chosen and sizes[document] <= wanted:
            chosen.add(document)
            wanted -= sizes[document]
    return chosen or {min(documents, key=lambda document: sizes[document])}


def _split(samples: Sequence[TokenSample], is_held_out: Sequence[bool]) -> tuple[list[TokenSample], list[TokenSample]]:
    pairs = list(zip(samples, is_held_out, strict=True))
    return [sample for sample, held in pairs if not held], [sample for sample, held in pairs if held]
