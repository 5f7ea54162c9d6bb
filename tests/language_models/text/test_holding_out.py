"""Samples are held out by document."""

from __future__ import annotations

import numpy as np
import pytest

from trt_ptq.language_models.text.holding_out import hold_out
from trt_ptq.language_models.text.samples import TokenSample


def samples(*pieces: int) -> list[TokenSample]:
    """Samples of documents with that many pieces, shuffled."""
    ordered = [
        TokenSample(np.arange(8), f"text {document}, piece {piece}", document=document, piece=piece)
        for document, count in enumerate(pieces)
        for piece in range(count)
    ]
    return [ordered[index] for index in np.random.default_rng(0).permutation(len(ordered))]


@pytest.mark.parametrize(
    ("pieces", "held_out"),
    [
        ((1,) * 100, 20),
        ((1,) * 2, 1),
        ((1,) * 7, 2),
        ((10,) * 10, 20),
        ((90, 5, 5), 10),
        ((50, 40), 40),
        ((8, 1, 1), 2),
    ],
)
def test_about_a_fifth_is_held_out_by_whole_documents(pieces: tuple[int, ...], held_out: int) -> None:
    calibration, evaluation = hold_out(samples(*pieces))
    assert len(evaluation) == held_out
    assert len(calibration) + len(evaluation) == sum(pieces)
    assert not {sample.document for sample in calibration} & {sample.document for sample in evaluation}


def test_a_single_document_is_split_into_two_contiguous_parts() -> None:
    calibration, evaluation = hold_out(samples(50))
    assert sorted(sample.piece for sample in calibration) == list(range(40))
    assert sorted(sample.piece for sample in evaluation) == list(range(40, 50))


def test_a_single_sample_is_not_held_out() -> None:
    (only,) = samples(1)
    assert hold_out([only]) == ([only], [])
