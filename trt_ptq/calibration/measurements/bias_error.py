"""The mean error that INT8 causes in each output channel of a layer, for bias correction."""

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
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session, run_part
from trt_ptq.qdq.insert import plan_qdq
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.types import Array, BatchSource

DEFAULT_SAMPLES = 64
MIN_BIAS_FRACTION = 0.1  # of the error's power: correcting a mean caused by few large errors harms all other values
_MAX_LAYERS = 16  # per pass: their inputs and outputs are in memory together
_MAX_WEIGHTS = 2**26  # values per pass: they are in memory a second time, as float32


def measure_bias_error(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    attention: bool = False,
    samples: int = DEFAULT_SAMPLES,
    stored_weights: StoredWeights | None = None,
) -> dict[str, Array]:
    """Measure the mean of (float output - INT8 output) for each output channel of each layer with a weight.

    Every layer reads the activations of the float model, so the result does not depend on the other layers, nor on
    which of them will run in INT8. Many or large layers take several passes over the batches.

    Args:
        model: The float model.
        table: The ranges of its activations.
        source: The calibration data.
        attention: Whether the MatMuls of attention run in INT8 too.
        samples: Number of samples to measure, from the start of `source`.
        stored_weights: See `insert_qdq`.

    Returns:
        float32 [channels] by the name of the layer's first output. 0 for channels where the squared mean is below
        MIN_BIAS_FRACTION of the error's power: there, a few values have large errors (the clipped outliers of a
        transformer), and not all values a common offset.

    Raises:
        DataError: No batches, the model fails on one, or the output of a layer has NaN or infinite values.
        TableError, ModelError: See `insert_qdq`.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
    section 4.2, in the empirical form of its appendix, including the error of the activations.
    """
    plan = plan_qdq(model, model.to_ir().graph, table, attention=attention)
    biases: dict[str, Array] = {}
    for layers in _groups(model, weighted_int8_layers(plan)):
        part = add_error_outputs(model, table, plan, layers, stored_weights)
        biases |= _measure(part, model, layers, source, samples)
    return biases


def _groups(model: Model, layers: Sequence[str]) -> list[list[str]]:
    """Group `layers`, in order, into those that are measured in one pass."""
    sizes = {
        str(node.outputs[0].name): math.prod(node.inputs[1].shape.numpy())
        for node in model.to_ir().graph
        if node.outputs[0].name in layers and node.inputs[1] is not None and node.inputs[1].shape is not None
    }
    groups: list[list[str]] = []
    for name in layers:
        last = groups[-1] if groups else []
        if not last or len(last) == _MAX_LAYERS or sum(sizes[layer] for layer in [*last, name]) > _MAX_WEIGHTS:
            groups.append([])
        groups[-1].append(name)
    return groups


@dataclass
class _ErrorSums:
    """The errors of a layer: their sum and the sum of their squares by output channel, and their count per channel."""

    total: Array
    squares: Array
    count: int = 0

    def bias(self) -> Array:
        """The mean error by channel; 0 where it is too small a fraction of the error."""
        count = max(self.count, 1)
        mean, power = self.total / count, self.squares / count
        return np.where(np.square(mean) >= MIN_BIAS_FRACTION * power, mean, 0).astype(np.float32)


def _measure(
    part: ir.Model, model: Model, layers: Sequence[str], source: BatchSource, samples: int
) -> dict[str, Array]:
    """Run `part`, the result of `add_error_outputs`, and average its outputs."""
    with externalized(model, part) as (proto, folder):
        session = create_session(proto, folder, str(model.path))
    errors = {name: _ErrorSums(np.zeros(1), np.zeros(1)) for name in layers}
    for batch in Head(source, samples):
        outputs = run_part(session, batch)
        for name, total, squares, size in zip(layers, outputs[::3], outputs[1::3], outputs[2::3], strict=True):
            if not np.isfinite(squares).all():
                raise DataError(
                    f"{batch.origin}: the mean of layer {name!r} has NaN or infinite values: remove the batch, or "
                    "quantize without bias correction"
                )
            errors[name].total = errors[name].total + total.astype(np.float64)
            errors[name].squares = errors[name].squares + squares.astype(np.float64)
            errors[name].count += int(size) // len(total)
    return {name: sums.bias() for name, sums in errors.items()}
