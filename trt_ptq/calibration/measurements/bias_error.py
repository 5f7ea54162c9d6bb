"""How far INT8 shifts the mean of each output channel of a layer, for bias correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trt_ptq.calibration.measurements.error_graph import add_error_outputs, weighted_int8_layers
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.data.subset import Head
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session, run_session, session_options
from trt_ptq.qdq.insert import plan_qdq
from trt_ptq.types import Array, Batch, BatchSource

DEFAULT_SAMPLES = 64  # samples
MIN_BIAS_FRACTION = 0.1  # of the error's power: a mean that a few large errors make would spoil all other values
_LAYERS_AT_ONCE = 16  # what they read and make is in memory together
_WEIGHTS_AT_ONCE = 2**26  # values, which are there once more as float32


def measure_bias_error(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    attention: bool = False,
    samples: int = DEFAULT_SAMPLES,
) -> dict[str, Array]:
    """The mean of (float output - INT8 output) for each output channel of each layer with a weight.

    Over the first batches of `source` that hold `samples` samples; by the layer's first output, float32 [channels].
    0 for a channel where it is less than WORTH of the error's power: there it tells of a few values with large errors
    (the clipped outliers of a transformer), not of an offset that all have.
    Every layer reads the float model's activations, so that layers do not depend on each other, nor on which of them
    will run in INT8. For many layers, or large ones, the batches are gone through more than once.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, 4.2, in
    the empirical form of its appendix, with the error of the activations in it.

    Raises:
        DataError: no batches, one on which the model fails, or NaN or infinity in a layer's output.
        TableError, ModelError: see `insert_qdq`.
    """
    plan = plan_qdq(model, model.to_ir().graph, table, attention=attention)
    shifts: dict[str, Array] = {}
    for layers in _groups(model, weighted_int8_layers(plan)):
        shifts |= _measure(add_error_outputs(model, table, plan, layers), model, layers, source, samples)
    return shifts


def _groups(model: Model, layers: Sequence[str]) -> list[list[str]]:
    """`layers` in their order, in parts that are measured in one pass."""
    sizes = {
        str(node.outputs[0].name): math.prod(node.inputs[1].shape.numpy())
        for node in model.to_ir().graph
        if node.outputs[0].name in layers and node.inputs[1] is not None and node.inputs[1].shape is not None
    }
    groups: list[list[str]] = []
    for name in layers:
        last = groups[-1] if groups else []
        if not last or len(last) == _LAYERS_AT_ONCE or sum(sizes[one] for one in [*last, name]) > _WEIGHTS_AT_ONCE:
            groups.append([])
        groups[-1].append(name)
    return groups


@dataclass
class _Errors:
    """The errors of a layer so far, by output channel: their sum, the sum of their squares, how many they are."""

    total: Array
    squares: Array
    count: int = 0

    def shift(self) -> Array:
        """Their mean, or 0 in channels where that is too small a part of them."""
        count = max(self.count, 1)
        mean, power = self.total / count, self.squares / count
        return np.where(np.square(mean) >= MIN_BIAS_FRACTION * power, mean, 0).astype(np.float32)


def _measure(
    part: ir.Model, model: Model, layers: Sequence[str], source: BatchSource, samples: int
) -> dict[str, Array]:
    """Runs `part`, which is of `add_error_outputs`."""
    options = session_options()
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # integer kernels of ONNX Runtime may saturate
    session = create_session(ir.to_proto(part), model.external.folder, str(model.path), options)
    inputs = [one.name for one in session.get_inputs()]
    errors = {name: _Errors(np.zeros(1), np.zeros(1)) for name in layers}
    for batch in Head(source, samples):
        outputs = run_session(session, Batch({name: batch.feeds[name] for name in inputs}, batch.origin))
        for name, total, squares, size in zip(layers, outputs[::3], outputs[1::3], outputs[2::3], strict=True):
            if not np.isfinite(squares).all():
                raise DataError(
                    f"{batch.origin}: the mean of layer {name!r} has NaN or infinite values: leave the batch out, or "
                    "quantize without bias correction"
                )
            errors[name].total = errors[name].total + total.astype(np.float64)
            errors[name].squares = errors[name].squares + squares.astype(np.float64)
            errors[name].count += int(size) // len(total)
    return {name: one.shift() for name, one in errors.items()}
