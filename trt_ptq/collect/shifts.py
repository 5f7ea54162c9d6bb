"""How far INT8 shifts the mean of each output channel of a layer, for bias correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.batches import Array, Batch, BatchSource, sample_count
from trt_ptq.calibrators.errors import DataError
from trt_ptq.calibrators.table.table import CalibrationTable
from trt_ptq.collect.session import create_session, run_session, session_options
from trt_ptq.graph.model import Model
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.twins import layers_in_int8, with_differences

ENOUGH = 64  # samples
_LAYERS_AT_ONCE = 16  # what they read and make is in memory together
_WEIGHTS_AT_ONCE = 2**26  # values, which are there once more as float32


def measure_shifts(
    model: Model,
    table: CalibrationTable,
    source: BatchSource,
    attention: bool = False,
    samples: int = ENOUGH,
) -> dict[str, Array]:
    """The mean of (float output - INT8 output) for each output channel of each layer with a weight.

    Over the first batches of `source` that hold `samples` samples; by the layer's first output, float32 [channels].
    Every layer reads the float model's activations, so that layers do not depend on each other, nor on which of them
    will run in INT8. For many layers, or large ones, the batches are gone through more than once.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, 4.2, in
    the empirical form of its appendix, with the error of the activations in it.

    Raises:
        DataError: no batches, one on which the model fails, or NaN or infinity in a layer's output.
        TableError, ModelError: see `insert_qdq`.
    """
    plan = insert_qdq(model, table, attention=attention).plan
    shifts: dict[str, Array] = {}
    for layers in _groups(model, layers_in_int8(plan)):
        shifts |= _measure(with_differences(model, table, plan, layers), model, layers, source, samples)
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


def _measure(
    part: ir.Model, model: Model, layers: Sequence[str], source: BatchSource, samples: int
) -> dict[str, Array]:
    """Runs `part`, which is of `with_differences`."""
    options = session_options()
    options.add_session_config_entry(
        "session.disable_quant_qdq", "1"
    )  # rounds in float, as its integer kernels need not
    session = create_session(ir.to_proto(part), model.external.folder, str(model.path), options)
    sums: dict[str, Array] = {}
    counts = dict.fromkeys(layers, 0)
    inputs = [one.name for one in session.get_inputs()]
    seen = 0
    for batch in source:
        outputs = run_session(session, Batch({name: batch.feeds[name] for name in inputs}, batch.origin))
        for name, total, size in zip(layers, outputs[::2], outputs[1::2], strict=True):
            if not np.isfinite(total).all():
                raise DataError(
                    f"{batch.origin}: the mean of layer {name!r} has NaN or infinite values: leave the batch out, or "
                    "quantize without bias correction"
                )
            sums[name] = sums.get(name, 0) + total.astype(np.float64)
            counts[name] += int(size) // len(total)
        seen += sample_count(batch.feeds)
        if seen >= samples:
            break
    if not seen:
        raise DataError("the data has no batches")
    return {name: (total / max(counts[name], 1)).astype(np.float32) for name, total in sums.items()}
