"""The scales of an INT8 cache: of values one for each channel, of keys one for each pair of channels.

The largest channel of a head of SmolLM2 is up to 5 times as large as the median one for values, and 30 times for keys.
Rotary position embedding turns channels j and j + size / 2 of a key into each other from token to token. So both get
the range of the pair,
sqrt(amax_j ** 2 + amax_k ** 2), which neither exceeds at any position, also of longer texts than the measured ones.
Keys that are not rotated in this way get a scale for each head.

Source: the rotation by halves of Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, as
Hugging Face's LLaMA computes it; scales for the channels of keys as in Liu et al., "KIVI: A Tuning-Free Asymmetric 2bit
Quantization for KV Cache", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.calibration.measurements.measuring_graph import MeasuringGraph
from trt_ptq.calibrators.table.calibration_table import INT8_MAX, SMALLEST_SCALE
from trt_ptq.calibrators.table.table_recipe import HeadScales
from trt_ptq.data.subset import Head
from trt_ptq.errors import DataError
from trt_ptq.language_models.decoder import CacheTensor, DecoderLayout
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import run_session
from trt_ptq.types import BatchSource

_SAMPLES = 64
_MAX_RATIO = 2.0**12  # of scales of one tensor, so that their quotients are normal float16 numbers
_DIGITS = 4  # significant ones: scales are written to several files, and more make nothing more accurate

Floats = npt.NDArray[np.float32]


def scales_array(scales: HeadScales) -> Floats:
    """The scales [heads, 1, channels or 1], which broadcast with a cache tensor [samples, heads, tokens, channels]."""
    return np.array(scales, np.float32)[:, None, :]


def measure_cache_scales(model: Model, source: BatchSource, layout: DecoderLayout) -> dict[str, HeadScales]:
    """Measure the scales on up to 64 samples; the model itself reduces, so no cache leaves it.

    Args:
        model: the float model.
        source: the calibration data.
        layout: its cache.

    Returns:
        The scales of each cache tensor by the name of its output, for each head one, or one per channel.

    Raises:
        DataError: there are no batches, the model fails on one, or keys or values are NaN or infinite.
    """
    graph = MeasuringGraph(model)
    presents = {tensor.present: graph.tensor(tensor.present) for tensor in layout.cache}
    for present in presents.values():
        graph.add_output(graph.max_over(graph.node("Abs", present), 0, 2))
    session = graph.session()
    largest = [np.zeros((tensor.num_heads, tensor.head_size), np.float32) for tensor in layout.cache]
    for batch in Head(source, _SAMPLES):
        largest = list(map(np.maximum, largest, run_session(session, batch)))
    scales = {}
    for tensor, amax in zip(layout.cache, largest, strict=True):
        if not np.isfinite(amax).all():
            raise DataError(f"cache tensor {tensor.present!r} has NaN or infinite values: check the model and the text")
        scales[tensor.present] = _scales(_ranges(amax, tensor, presents[tensor.present]))
    return scales


def cache_scales_content(scales: Mapping[str, HeadScales], layout: DecoderLayout) -> dict[str, dict[str, object]]:
    """What applications read, by the name of the input: the `scales`, the widest of each head, and the widest."""
    return {
        tensor.past: {
            "past": tensor.past,
            "present": tensor.present,
            "scale": max(map(max, scales[tensor.present])),
            "head_scales": list(map(max, scales[tensor.present])),
            "scales": scales[tensor.present],
        }
        for tensor in layout.cache
    }


def _ranges(amax: Floats, tensor: CacheTensor, present: ir.Value) -> Floats:
    """The ranges [heads, channels or 1] of a cache tensor whose largest magnitudes are `amax` [heads, channels]."""
    if tensor.is_value:
        return amax
    if _rotates_halves(present):
        first, second = np.split(amax, 2, axis=1)
        return np.tile(np.hypot(first, second), 2)
    widest: Floats = amax.max(axis=1, keepdims=True)
    return widest


def _scales(ranges: Floats) -> HeadScales:
    """The scales for these ranges [heads, channels or 1]."""
    scales = np.maximum(ranges, max(ranges.max() / _MAX_RATIO, SMALLEST_SCALE * INT8_MAX)) / INT8_MAX
    return tuple(tuple(float(f"{scale:.{_DIGITS}g}") for scale in head) for head in scales)


def _rotates_halves(present: ir.Value) -> bool:
    """Whether the new tokens in a cache tensor are x * cos + concat(-second half of x, first half of x) * sin."""
    append = present.producer()
    new = append.inputs[1] if append is not None and append.op_type == "Concat" and len(append.inputs) == 2 else None
    for product in _operands(new, "Add"):
        for factor in _operands(product, "Mul"):
            halves = _operands(factor, "Concat")
            if len(halves) == 2:
                negated = _operands(halves[0], "Neg")
                sources = [_operands(half, "Slice") for half in (*negated, halves[1])]
                if len(sources) == 2 and all(sources) and sources[0][0] is sources[1][0]:
                    return True
    return False


def _operands(value: ir.Value | None, op_type: str) -> tuple[ir.Value | None, ...]:
    """The inputs of the node that computes `value`; none if it is another operator."""
    node = value.producer() if value is not None else None
    return tuple(node.inputs) if node is not None and node.op_type == op_type else ()
