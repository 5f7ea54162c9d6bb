"""SmoothQuant: the strength alpha for each tensor, by the output error of the layers that read it.

s_j = amax(x_j)^alpha / amax(w_j)^(1 - alpha) for input channel j. The paper uses one alpha for the whole model, found
by trial; here each tensor has its own, the one of a few with the smallest output error, or is not smoothed at all.

The error of each row (a token) is relative to that row, so that the few tokens of massive activations do not decide
alone; and the range is that of all data, so that they do decide on the range: clipped, they ruin all that attends to
them.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022,
equation 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trt_ptq.analysis.dataflow import name_of
from trt_ptq.calibration.measurements.channels import Channels, sample_channels
from trt_ptq.calibrators.table.calibration_table import INT8_MAX, SMALLEST_SCALE
from trt_ptq.evaluation.error_energy import fake_quantize
from trt_ptq.onnx_io.external_data import read_once
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.weights import quantize_weight
from trt_ptq.transforms.channel_splitting import Copies, channel_origin, smallest_range, split_channels
from trt_ptq.transforms.linear_layers import Linear
from trt_ptq.transforms.result import TransformResult, TransformSite
from trt_ptq.transforms.smoothquant import find_pairs, scale_pairs
from trt_ptq.types import Array, BatchSource

ALPHAS = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MAX_ADDED = 0.05  # channels that are added to a tensor at most, as a fraction
MIN_GAIN = 0.1  # fraction by which added channels must lower the output error
_MULTIPLE = 32  # of channels, which kernels of INT8 products take at once
_MAX_COLUMNS = 256  # columns of a weight that the output error is computed on
_MAX_SCALE = 2.0**12  # relative to the mean, so that small values stay normal float16 numbers

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Weight:
    """A weight: its name, amax [channels] of all its rows, and some of its columns [channels, n]."""

    name: str
    amax: Floats
    columns: Floats


@dataclass(frozen=True)
class _Choice:
    alpha: float
    scales: Floats
    error: float
    copies: Copies | None = None


def apply_smoothquant(model: Model, source: BatchSource) -> TransformResult:
    """Apply SmoothQuant to the tensors of `model` where it lowers the output error on up to 64 samples.

    Args:
        model: the float model.
        source: the calibration data.

    Raises:
        DataError: there are no batches, or the model fails on one.
        ModelError: a weight has NaN or infinite values.
    """
    result = model.to_ir()
    pairs, skipped = find_pairs(result.graph)
    if not pairs:
        return TransformResult(result, (), tuple(skipped))
    channels_of = sample_channels(model, source, {str(pair.tensor.name): pair.channels for pair in pairs})
    applied, chosen, changed = [], [], set[str]()
    for pair in pairs:
        name = str(pair.tensor.name)
        channels = channels_of.pop(name)
        if not np.isfinite(channels.amax).all():
            skipped.append(TransformSite(name, "it has NaN or infinite values"))
            continue
        weights = [_read(linear) for linear in pair.quantized]
        plain, best = _best(channels, weights)
        if best is None:
            skipped.append(TransformSite(name, f"no alpha lowers the output error, {plain:.2%}"))
            continue
        note = f"alpha {best.alpha}"
        if origin := channel_origin(pair):
            best = _split(channels, weights, best)
            if best.copies is not None:
                split_channels(result.graph, pair, origin, best.copies)
                changed |= set(map(name_of, origin.tensors))
                note = f"{len(best.scales) - pair.channels} channels added, alpha {best.alpha}"
        chosen.append((pair, best.scales))
        changed |= pair.scaled_tensors()
        applied.append(TransformSite(name, f"{note}, output error {plain:.2%} -> {best.error:.2%}"))
    scale_pairs(result.graph, chosen)
    return TransformResult(result, tuple(applied), tuple(skipped), frozenset(changed))


def _read(linear: Linear) -> _Weight:
    assert linear.weight.const_value is not None

    def look(values: Array) -> _Weight:
        weight = linear.matrix(values)
        every = -(-weight.shape[1] // _MAX_COLUMNS)
        return _Weight(str(linear.weight.name), np.abs(weight).max(axis=1), np.ascontiguousarray(weight[:, ::every]))

    return read_once(linear.weight.const_value, look)


def _best(channels: Channels, weights: Sequence[_Weight]) -> tuple[float, _Choice | None]:
    """The output error without smoothing, and the best alpha; None if that does not lower it."""
    exact = [channels.rows @ weight.columns for weight in weights]
    energies = [np.square(output).sum(axis=1) for output in exact]
    if not any(map(np.any, energies)):
        return 0.0, None

    def error(scales: Floats) -> float:
        step = max(float((channels.amax / scales).max()) / INT8_MAX, SMALLEST_SCALE)
        data = fake_quantize(channels.rows / scales, np.float32(step))
        ratios = [
            np.square(data @ _quantized_columns(weight, scales) - output).sum(axis=1)[energy > 0] / energy[energy > 0]
            for weight, output, energy in zip(weights, exact, energies, strict=True)
        ]
        return float(np.sqrt(np.concatenate(ratios).mean()))

    plain = error(np.ones_like(channels.amax))
    widest = np.maximum.reduce([weight.amax for weight in weights])
    tried = [_Choice(alpha, scales, error(scales)) for alpha, scales in _candidates(channels.amax, widest)]
    best = min(tried, key=lambda choice: choice.error)
    return plain, best if best.error < plain else None


def _split(channels: Channels, weights: Sequence[_Weight], best: _Choice) -> _Choice:
    """`best`, or one with split channels that has a smaller output error; further channels must lower it each time."""
    width = len(channels.amax)
    for widened in range(-(-(width + 1) // _MULTIPLE) * _MULTIPLE, int((1 + MAX_ADDED) * width) + 1, _MULTIPLE):
        copies = smallest_range(channels.amax, widened - width)
        parts = copies.channels
        rows = np.ascontiguousarray(channels.rows[:, parts] / copies.divisors)
        split = Channels(channels.amax[parts] / copies.divisors, rows)
        _, found = _best(split, [replace(w, amax=w.amax[parts], columns=w.columns[parts]) for w in weights])
        if found is None or found.error > (1 - MIN_GAIN) * best.error:
            break
        best = replace(found, copies=copies)
    return best


def _candidates(data: Floats, weights: Floats) -> Iterator[tuple[float, Floats]]:
    """Scales [channels] for each alpha, around 1; exactly 1 for channels without data or without weights."""
    alive = (data > 0) & (weights > 0)
    for alpha in ALPHAS:
        logs = alpha * np.log2(data[alive]) - (1 - alpha) * np.log2(weights[alive])
        scales = np.ones_like(data)
        scales[alive] = np.clip(np.exp2(logs - logs.mean()), 1 / _MAX_SCALE, _MAX_SCALE)
        yield alpha, scales


def _quantized_columns(weight: _Weight, scales: Floats) -> Floats:
    """The columns of `weight`, with rows multiplied by `scales`, in INT8 and back; one INT8 scale per column."""
    rounded = quantize_weight(weight.columns * scales[:, None], 1, weight.name)
    return rounded.values * rounded.scales
