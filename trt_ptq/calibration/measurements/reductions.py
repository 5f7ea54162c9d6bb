"""The largest magnitude of tensors, computed by the model itself, so that no complete tensor leaves it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.data.subset import Head
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session, run_session
from trt_ptq.types import BatchSource

_PREFIX = "trt_ptq.reduced"
_REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceSum")
_AXES_ARE_AN_INPUT = 18  # of ReduceMax, since this opset

Reduced = Mapping[str, tuple[str, int | None]]


def reduce_amax(model: Model, source: BatchSource, tensors: Reduced, samples: int) -> dict[str, float]:
    """Measure the largest magnitude of tensors over the first batches of `source`.

    Args:
        model: The float model.
        source: The batches.
        tensors: What to measure, in graph order, by a name for the result: a float32 tensor of the model, and the axis
            over which its maximum is taken before, or None.
        samples: Number of samples to measure, from the start of `source`.

    Returns:
        The magnitude by name; NaN where a value is NaN or infinite, or the sum of all is.

    Raises:
        ModelError, DataError: There is no batch, or the model cannot be run on one, as with an empty tensor.
    """
    # ONNX Runtime starts with what was added last, so that each tensor is reduced, and freed, before the next ones.
    backwards = dict(reversed(list(tensors.items())))
    part = _with_reductions(model, backwards)
    with externalized(model, part) as (proto, folder):
        session = create_session(proto, folder, str(model.path))
    amax = np.zeros(len(tensors), np.float32)
    for batch in Head(source, samples):
        reduced = np.array(run_session(session, batch), np.float32).reshape(-1, len(_REDUCTIONS))
        largest, smallest, total = reduced.T
        magnitude = np.maximum(largest, -smallest)
        amax = np.maximum(amax, np.where(np.isfinite(total), magnitude, np.nan))  # NaN stays NaN
    return dict(zip(backwards, amax.tolist(), strict=True))


def _with_reductions(model: Model, tensors: Reduced) -> ir.Model:
    """Return a model with three outputs for each of `tensors`: its maximum, its minimum and its sum."""
    part = model.to_ir()
    graph = part.graph
    values = {value.name: value for node in graph for value in node.outputs}
    values |= {value.name: value for value in graph.inputs}
    editor = GraphEditor(graph)
    graph.outputs.clear()
    for name, axis in tensors.values():
        value = values[name]
        if axis is not None:
            value = _row_maxima(editor, model.opset, value, axis)
        for op_type in _REDUCTIONS:
            output = editor.node(_PREFIX, op_type, value, keepdims=0)
            output.type = ir.TensorType(ir.DataType.FLOAT)
            graph.outputs.append(output)
    return passes.RemoveUnusedNodesPass()(part).model


def _row_maxima(editor: GraphEditor, opset: int, value: ir.Value, axis: int) -> ir.Value:
    if opset < _AXES_ARE_AN_INPUT:
        return editor.node(_PREFIX, "ReduceMax", value, axes=[axis], keepdims=0)
    axes = editor.constant(_PREFIX, ir.tensor(np.array([axis])))
    return editor.node(_PREFIX, "ReduceMax", value, axes, keepdims=0)
