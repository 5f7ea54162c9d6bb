"""GPTQ: round the weights of a linear layer so that their errors cancel in its output.

Weights are rounded one input channel after the other, those with the most energy first. The error of each is made up
for by the channels that are not rounded yet, as far as their values go together: for the second moments H = mean(x x^T)
of the inputs, the error of the output is e^T H e, where e are the errors of the weights of one output channel.

With H = F D F^T, where F is upper triangular with ones on its diagonal and D is diagonal, that error is the sum over
all channels c of D[c] (e[c] + sum of F[k, c] e[k] over the channels k before c)^2. So each channel is rounded to what
cancels the errors before it. GPTQ computes the same from the inverse of H, which is not needed here.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023,
algorithm 1, with the order of section "act-order" of its code; Chen et al., "The Geometry of LLM Quantization: GPTQ as
Babai's Nearest Plane Algorithm", 2025, for the form without the inverse.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_ptq._internal.hardware.blas import one_blas_thread
from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.calibrators.statistics.compiled import compiled
from trt_ptq.calibrators.table.calibration_table import INT8_MAX

DAMPENING = 0.01  # of the mean of the diagonal: as if each input had that much noise of its own
_BLOCK = 64  # input channels that are rounded one by one; between blocks, errors are spread by products of matrices
_COLUMNS = 512  # output channels that a thread rounds at once
_THREADS = 4  # at most, which bounds the memory
_TILE = 128  # output channels of which a block fits into the first cache of a processor
_FACTORED = 128  # columns of a Cholesky factor that are computed at once
_COMPARED = 256  # input channels whose part of an error is computed at once

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Int8s = npt.NDArray[np.int8]


@dataclass(frozen=True)
class ErrorFeedback:
    """The second moments H of the inputs of a layer: H + `dampening` I = F D F^T.

    Attributes:
        order: the input channels, in the order in which they are rounded.
        factor: F [channels, channels], in this order: upper triangular, with ones on its diagonal.
        energy: the diagonal of D, in this order.
        dampening: what was added to the diagonal of H.
    """

    order: npt.NDArray[np.intp]
    factor: Floats
    energy: Floats
    dampening: float


@one_blas_thread()
def error_feedback(moments: Doubles, dampening: float = DAMPENING) -> ErrorFeedback:
    """Prepare the rounding of all weights that multiply inputs with these second moments.

    Args:
        moments: H [channels, channels], finite.
        dampening: fraction of the mean of the diagonal that is added to the diagonal; more where that is not enough.
    """
    energy = np.diagonal(moments)
    order = np.argsort(-energy, kind="stable")
    added = dampening * float(energy.mean()) if energy.any() else 1.0
    for dtype in (np.float32, np.float64):  # the second one where channels go together so closely that it takes more
        lower: npt.NDArray[Any] = moments.astype(dtype)[np.ix_(order[::-1], order[::-1])]
        lower[np.diag_indices(len(lower))] += added
        if _factorize(lower):
            diagonal = np.diagonal(lower)[::-1].astype(np.float32)
            factor = (lower[::-1, ::-1] / diagonal).astype(np.float32, copy=False)
            return ErrorFeedback(order, factor, diagonal**2, added)
    return error_feedback(moments, 10 * max(dampening, DAMPENING))  # by the rounding of sums over few massive values


def _factorize(matrix: npt.NDArray[Any]) -> bool:
    """Replace a symmetric matrix by its Cholesky factor, lower triangular; False if it is not positive definite.

    Nearly all of it are products of matrices, in place. NumPy's own takes five times as long for 5632 channels, and
    twice the memory.
    """
    diagonal = np.diagonal(matrix)
    if not (diagonal > 0).all():
        return False
    scaling = 1 / np.sqrt(diagonal)  # channels differ by orders of magnitude
    matrix *= scaling[:, None]
    matrix *= scaling
    for start in range(0, len(matrix), _FACTORED):
        end = min(start + _FACTORED, len(matrix))
        matrix[start:, start:end] -= matrix[start:, :start] @ matrix[start:end, :start].T
        try:
            square = np.linalg.cholesky(matrix[start:end, start:end])
        except np.linalg.LinAlgError:
            return False
        matrix[start:end, start:end] = square
        matrix[start:end, end:] = 0
        matrix[end:, start:end] = matrix[end:, start:end] @ np.linalg.inv(square).T
    matrix /= scaling[:, None]
    return True


@one_blas_thread()
def round_with_feedback(weight: Floats, scales: Floats, feedback: ErrorFeedback) -> Int8s:
    """Round `weight` / `scales` to integers in [-127, 127], with the smallest error of the output that is found.

    An output channel for which rounding each weight to the nearest integer has a smaller error is rounded so.

    Args:
        weight: [input channels, output channels].
        scales: [output channels], above 0.
        feedback: for the inputs of the layer.
    """
    rounded = np.empty(weight.shape, np.int8)

    def round_columns(start: int) -> None:
        columns = slice(start, start + _COLUMNS)
        exact = (weight[feedback.order, columns] / scales[columns]).astype(np.float32)
        errors = np.empty_like(exact)
        losses = np.zeros(exact.shape[1])
        _spread(exact.copy(), exact, feedback, errors, losses, 0, len(exact))
        nearest = np.clip(np.rint(exact), -INT8_MAX, INT8_MAX) - exact
        is_better = _are_larger(nearest, losses - _added(errors, feedback), feedback)
        errors[:, ~is_better] = nearest[:, ~is_better]
        rounded[feedback.order, columns] = np.rint(np.add(exact, errors, out=errors))

    with ThreadPoolExecutor(min(usable_cores(), _THREADS)) as pool:
        list(pool.map(round_columns, range(0, weight.shape[1], _COLUMNS)))
    return rounded


def _spread(
    targets: Floats, exact: Floats, feedback: ErrorFeedback, errors: Floats, losses: Doubles, start: int, end: int
) -> None:
    """Round the input channels from `start` to `end`, by halves: most of the errors are spread in large products.

    Args:
        targets: what to round to instead of `exact`, after the errors of the channels before `start`; overwritten.
        exact: the weights [input channels, output channels], in units of their scales.
        feedback: for the inputs of the layer.
        errors: receives rounded - exact.
        losses: receives the dampened error of each output channel: the sum of energy * (rounded - target)^2.
        start: the first input channel.
        end: the first one after them.
    """
    if end - start <= _BLOCK:
        block = slice(start, end)
        _round_block(
            targets[block], exact[block], feedback.factor[block, block], feedback.energy[block], errors[block], losses
        )
        return
    middle = start + (end - start + _BLOCK) // (2 * _BLOCK) * _BLOCK
    _spread(targets, exact, feedback, errors, losses, start, middle)
    targets[middle:end] -= feedback.factor[start:middle, middle:end].T @ errors[start:middle]
    _spread(targets, exact, feedback, errors, losses, middle, end)


@compiled
def _round_block(targets: Any, exact: Any, factor: Any, energy: Any, errors: Any, losses: Any) -> None:
    channels, columns = targets.shape
    largest = np.float32(INT8_MAX)
    for first in range(0, columns, _TILE):
        last = min(first + _TILE, columns)
        for channel in range(channels):
            for column in range(first, last):
                value, target = exact[channel, column], targets[channel, column]
                is_largest = abs(value) > largest - np.float32(0.5)  # stays, so that the scale follows from the result
                rounded = np.rint(min(max(value if is_largest else target, -largest), largest))
                errors[channel, column] = rounded - value
                losses[column] += energy[channel] * (rounded - target) ** 2
            for later in range(channel + 1, channels):
                share = factor[channel, later]
                for column in range(first, last):
                    targets[later, column] -= share * errors[channel, column]


def _are_larger(errors: Floats, losses: Doubles, feedback: ErrorFeedback) -> npt.NDArray[np.bool_]:
    """Whether the error of the output, e^T H e, for each column of `errors` is larger than that of `losses`."""
    total = -_added(errors, feedback)
    for start in range(0, len(errors), _COMPARED):
        end = start + _COMPARED
        missed = feedback.factor[:end, start:end].T @ errors[:end]
        total += feedback.energy[start:end] @ np.square(missed, out=missed)
        if (total > losses).all():  # what is left adds to it
            break
    larger: npt.NDArray[np.bool_] = total > losses
    return larger


def _added(errors: Floats, feedback: ErrorFeedback) -> Doubles:
    """What the dampening adds to the error of the output."""
    added: Doubles = feedback.dampening * np.einsum("io,io->o", errors, errors)
    return added
