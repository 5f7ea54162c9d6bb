"""GPTQ: round the weights of a linear layer so that their errors cancel in its output.

Weights are rounded one input channel after the other, those with the most energy first. The error of each is made up
for by the channels that are not rounded yet, as far as their values go together: for the second moments H = mean(x x^T)
of the inputs, the error of the output is e^T H e, where e are the errors of the weights of one output channel.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023,
algorithm 1, with the order of section "act-order" of its code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq.calibrators.table.calibration_table import INT8_MAX

DAMPENING = 0.01  # of the mean of the diagonal: as if each input had that much noise of its own
_BLOCK = 64  # input channels whose errors are spread over the rest at once
_COLUMNS = 2048  # output channels that are rounded at once, so that a block stays in the processor's cache
_SMALL = 64  # a triangle of this size is inverted as a whole

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Int8s = npt.NDArray[np.int8]


@dataclass(frozen=True)
class ErrorFeedback:
    """How the rounding error of each input channel is spread over the channels that come after it.

    Attributes:
        order: the input channels, in the order in which they are rounded.
        factor: upper triangular [channels, channels], in this order: U with U^T U = H^-1.
        moments: H itself, in this order, to compare errors by.
    """

    order: npt.NDArray[np.intp]
    factor: Floats
    moments: Floats


def error_feedback(moments: Doubles, dampening: float = DAMPENING) -> ErrorFeedback:
    """Prepare the rounding of all weights that multiply inputs with these second moments.

    Args:
        moments: H [channels, channels], finite.
        dampening: fraction of the mean of the diagonal that is added to the diagonal; more where that is not enough.
    """
    energy = np.diagonal(moments)
    order = np.argsort(-energy, kind="stable")
    ordered = moments[np.ix_(order, order)]
    diagonal = energy[order] + dampening * energy.mean()
    dampened = ordered.copy()
    np.fill_diagonal(dampened, np.where(diagonal > 0, diagonal, 1))
    scaling = 1 / np.sqrt(np.diagonal(dampened))  # channels differ by orders of magnitude
    correlations = dampened * scaling[:, None] * scaling
    try:
        lower = np.linalg.cholesky(correlations[::-1, ::-1]).astype(np.float64)
    except np.linalg.LinAlgError:  # by the rounding of sums over few massive values
        return error_feedback(moments, 10 * max(dampening, DAMPENING))
    inverse = _inverted(lower[::-1, ::-1]) * scaling
    return ErrorFeedback(order, inverse.astype(np.float32), ordered.astype(np.float32))


def _inverted(upper: Doubles) -> Doubles:
    """The inverse of an upper triangular matrix, by halves."""
    size = len(upper)
    if size <= _SMALL:
        return np.triu(np.linalg.inv(upper))
    half = size // 2
    first, last = _inverted(upper[:half, :half]), _inverted(upper[half:, half:])
    inverse = np.zeros_like(upper)
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[:half, half:] = -first @ upper[:half, half:] @ last
    return inverse


def round_with_feedback(weight: Floats, scales: Floats, feedback: ErrorFeedback) -> Int8s:
    """Round `weight` / `scales` to integers in [-127, 127], with the smallest error of the output that is found.

    An output channel for which rounding each weight to the nearest integer has a smaller error is rounded so.

    Args:
        weight: [input channels, output channels].
        scales: [output channels], above 0.
        feedback: for the inputs of the layer.
    """
    rounded = np.empty(weight.shape, np.int8)
    for start in range(0, weight.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        exact = (weight[feedback.order, columns] / scales[columns]).astype(np.float32)
        nearest = _nearest(exact)
        spread = _spread(exact, feedback.factor)
        better = _error(spread - exact, feedback.moments) < _error(nearest - exact, feedback.moments)
        rounded[feedback.order, columns] = np.where(better, spread, nearest)
    return rounded


def _spread(exact: Floats, factor: Floats) -> Floats:
    left = exact.copy()
    rounded = np.empty_like(exact)
    for start in range(0, len(exact), _BLOCK):
        end = min(start + _BLOCK, len(exact))
        errors = np.empty((end - start, exact.shape[1]), np.float32)
        for channel in range(start, end):
            is_largest = np.abs(exact[channel]) > INT8_MAX - 0.5  # stays, so that the scale follows from the result
            rounded[channel] = _nearest(np.where(is_largest, exact[channel], left[channel]))
            errors[channel - start] = (left[channel] - rounded[channel]) / factor[channel, channel]
            left[channel + 1 : end] -= factor[channel, channel + 1 : end, None] * errors[channel - start]
        left[end:] -= factor[start:end, end:].T @ errors
    return rounded


def _nearest(values: Floats) -> Floats:
    return np.clip(np.rint(values), -INT8_MAX, INT8_MAX)


def _error(errors: Floats, moments: Floats) -> Floats:
    """The error of the output, e^T H e, for each column of `errors`."""
    total: Floats = np.sum(errors * (moments @ errors), axis=0)
    return total
