"""How often a model predicts the next token that FP32 predicts, and how far its probabilities are off, by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trt_ptq.evaluation.runners.onnx_runner import Run
from trt_ptq.language_models.decoder import DecoderLayout
from trt_ptq.language_models.judging.next_token import kl_divergence
from trt_ptq.language_models.judging.perplexity import TextWindow, window_logits
from trt_ptq.types import Array

_ROWS = 64  # positions compared at a time


@dataclass(frozen=True)
class PositionAgreement:
    """Agreement with FP32 at the positions `start` to `stop - 1` of a window.

    Attributes:
        agreement: fraction of the positions whose most likely next token is that of FP32.
        kl_divergence: mean KL(FP32 || model) of the next-token distributions, in nats.
        positions: number of positions, over all windows.
    """

    start: int
    stop: int
    agreement: float
    kl_divergence: float
    positions: int

    @property
    def label(self) -> str:
        """The positions, as "16 to 63"."""
        return str(self.start) if self.stop == self.start + 1 else f"{self.start} to {self.stop - 1}"


def next_token_agreement(
    reference: Run, candidate: Run, layout: DecoderLayout, windows: Sequence[TextWindow]
) -> list[PositionAgreement]:
    """Compare the next-token predictions of two models, by position in the window.

    The rows are position 0, where many models keep an attention sink, then 1 to 15, 16 to 63, 64 to 255 and so on, and
    last all positions together.

    Args:
        reference: runs the FP32 model.
        candidate: runs the other one.
        layout: inputs and outputs of both.
        windows: the text.
    """
    longest = max((len(window.ids) for window in windows), default=0)
    sums = np.zeros((3, longest))  # by position: windows, agreeing, KL divergence
    pairs = zip(window_logits(reference, layout, windows), window_logits(candidate, layout, windows), strict=True)
    for (window, expected), (_, actual) in pairs:
        for start in range(0, len(window.ids), _ROWS):
            part = slice(start, min(start + _ROWS, len(window.ids)))
            sums[0, part] += 1
            sums[1, part] += expected[part].argmax(axis=1) == actual[part].argmax(axis=1)
            sums[2, part] += kl_divergence(expected[part], actual[part])
    bounds = _bounds(longest)
    return [_row(sums, start, stop) for start, stop in [*bounds, (0, longest)]]


def _bounds(longest: int) -> list[tuple[int, int]]:
    edges = [0, 1, 16]
    while edges[-1] < longest:
        edges.append(4 * edges[-1])
    return [(start, min(stop, longest)) for start, stop in pairwise(edges) if start < longest]


def _row(sums: Array, start: int, stop: int) -> PositionAgreement:
    count, agreeing, divergence = sums[:, start:stop].sum(axis=1)
    return PositionAgreement(start, stop, float(agreeing / count), float(divergence / count), int(count))
