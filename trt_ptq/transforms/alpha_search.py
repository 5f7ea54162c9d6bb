"""SmoothQuant: the strength alpha for each tensor, by the output error of the layers that read it.

s_j = amax(x_j)^alpha / amax(w_j)^(1 - alpha) for input channel j. The paper uses one alpha for the whole model, found
by trial; here each tensor has its own, the one of a few with the smallest output error, or is not smoothed at all.

Scales and a range that fit the largest magnitude of each channel closely clip unseen data, so those of half of the data
are judged on the other half. The error of each row (a token) is relative to that row, so that the few tokens of massive
activations do not decide alone; and the range is that of all data of a half, so that they do decide on the range:
clipped, they ruin all that attends to them.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022,
equation 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_ptq._internal.hardware.blas import one_blas_thread
from trt_ptq.analysis.dataflow import name_of
from trt_ptq.calibration.measurements.channels import Channels, Half, sample_channels
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
class _Smoothing:
    """How a tensor is smoothed: by `alpha`, None for not at all, after `added` channels were split off."""

    alpha: float | None = None
    added: int = 0

    def __str__(self) -> str:
        added = f"{self.added} channels added, " if self.added else ""
        return f"{added}alpha {self.alpha}"

    def copies(self, amax: Floats) -> Copies:
        """The split of channels with these largest magnitudes."""
        return smallest_range(amax, self.added)

    def scales(self, data: Floats, weights: Floats) -> Floats:
        """Scales [channels] around 1, by the largest magnitudes; exactly 1 for channels without data or weights."""
        scales = np.ones_like(data)
        alive = (data > 0) & (weights > 0)
        if self.alpha is not None and alive.any():
            logs = self.alpha * np.log2(data[alive]) - (1 - self.alpha) * np.log2(weights[alive])
            scales[alive] = np.clip(np.exp2(logs - logs.mean()), 1 / _MAX_SCALE, _MAX_SCALE)
        return scales


@one_blas_thread()
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
        error_of, origin = _OutputError(channels, weights), channel_origin(pair)
        plain, best = error_of(_Smoothing()), _best(error_of, pair.channels if origin else 0)
        if not error_of(best) < plain:  # also where it is NaN, as products overflow
            skipped.append(TransformSite(name, f"no alpha lowers the output error, {plain:.2%}"))
            continue
        copies = best.copies(channels.amax)
        if origin and best.added:
            split_channels(result.graph, pair, origin, copies)
            changed |= set(map(name_of, origin.tensors))
        chosen.append((pair, best.scales(copies.parts(channels.amax), _widest(weights)[copies.channels])))
        changed |= pair.scaled_tensors()
        applied.append(TransformSite(name, f"{best}, output error {plain:.2%} -> {error_of(best):.2%}"))
    scale_pairs(result.graph, chosen)
    return TransformResult(result, tuple(applied), tuple(skipped), frozenset(changed))


def _read(linear: Linear) -> _Weight:
    assert linear.weight.const_value is not None

    def look(values: Array) -> _Weight:
        weight = linear.matrix(values)
        every = -(-weight.shape[1] // _MAX_COLUMNS)
        columns = np.array(weight[:, ::every], order="C")  # not a view of a file that is about to be unmapped
        return _Weight(str(linear.weight.name), np.abs(weight).max(axis=1), columns)

    return read_once(linear.weight.const_value, look)


class _OutputError:
    """The error of the layers that read a tensor, relative to their output, by how the tensor is smoothed.

    Scales and the range are of half of the data, and the error is that on the other half: ranges that fit the largest
    magnitude of each channel closely clip unseen data.

    Args:
        channels: the tensor.
        weights: the weights of the layers.
    """

    def __init__(self, channels: Channels, weights: Sequence[_Weight]) -> None:
        self._weights = weights
        self._halves = [(half, [half.rows @ weight.columns for weight in weights]) for half in channels.halves]
        self._known: dict[_Smoothing, float] = {}

    def __call__(self, smoothing: _Smoothing) -> float:
        """The root of the mean square over all rows."""
        if smoothing not in self._known:
            ratios = [ratio for half, exact in self._halves for ratio in self._ratios(smoothing, half, exact)]
            every = np.concatenate(ratios)
            self._known[smoothing] = float(np.sqrt(every.mean())) if every.size else 0.0
        return self._known[smoothing]

    def _ratios(self, smoothing: _Smoothing, half: Half, exact: Sequence[Floats]) -> Iterator[Floats]:
        """The energy of the error of each row that has an output, by weight."""
        copies = smoothing.copies(half.amax)
        amax = copies.parts(half.amax)
        scales = smoothing.scales(amax, _widest(self._weights)[copies.channels])
        step = max(float((amax / scales).max()) / INT8_MAX, SMALLEST_SCALE)
        data = fake_quantize(copies.parts(half.rows) / scales, np.float32(step))
        for weight, output in zip(self._weights, exact, strict=True):
            rounded = quantize_weight(weight.columns[copies.channels] * scales[:, None], 1, weight.name)
            error = np.square(data @ (rounded.values * rounded.scales) - output).sum(axis=1)
            energy = np.square(output).sum(axis=1)
            yield error[energy > 0] / energy[energy > 0]


def _best(error_of: _OutputError, width: int) -> _Smoothing:
    """The smoothing with the smallest output error; channels are added while each 32 of them lower it.

    Args:
        error_of: measures it.
        width: the number of channels, if they can be split; 0 if not.
    """
    best = min((_Smoothing(alpha) for alpha in ALPHAS), key=error_of)
    for widened in range(-(-(width + 1) // _MULTIPLE) * _MULTIPLE, int((1 + MAX_ADDED) * width) + 1, _MULTIPLE):
        split = min((_Smoothing(alpha, widened - width) for alpha in ALPHAS), key=error_of)
        if error_of(split) > (1 - MIN_GAIN) * error_of(best):
            break
        best = split
    return best


def _widest(weights: Sequence[_Weight]) -> Floats:
    """The largest magnitude [channels] in the rows of all weights."""
    widest: Floats = np.maximum.reduce([weight.amax for weight in weights])
    return widest
