"""The largest magnitude of every float32 tensor, for deciding what float16 can hold."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.batches import BatchSource, sample_count
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.collect.parts import loadable
from trt_ptq.collect.session import create_session, run_session
from trt_ptq.graph.float16_slots import is_float32
from trt_ptq.graph.model import Model

ENOUGH = 16  # samples: float16_range.MARGIN leaves room for the others


def measure_amax(model: Model, source: BatchSource, samples: int = ENOUGH) -> dict[str, float]:
    """The largest finite magnitude of each float32 tensor of the main graph that is no constant.

    Over the first batches of `source` that hold `samples` samples. The magnitudes are taken inside the model, so that
    no activation leaves it.

    Raises:
        DataError: a batch on which the model fails.
    """
    graph = model.to_ir()
    names = _give_amax(graph.graph)
    with loadable(model, graph) as (proto, folder):
        session = create_session(proto, folder, str(model.path))
    found = dict.fromkeys(names, 0.0)
    seen = 0
    for batch in source:
        for name, value in zip(names, run_session(session, batch), strict=True):
            found[name] = float(np.maximum(found[name], value))  # NaN stays NaN
        seen += sample_count(batch.feeds)
        if seen >= samples:
            break
    return found


def known_amax(measured: dict[str, float], statistics: Statistics) -> dict[str, float]:
    """`measured`, raised to what `statistics` saw of the same tensors over all data."""
    seen = {name: tensor.amax for name, tensor in statistics.tensors.items()}
    return {name: max(value, seen.get(name, value)) for name, value in measured.items()}


def _give_amax(graph: ir.Graph) -> list[str]:
    """Replace the outputs of `graph` by the scalar amax of each float32 tensor; returns their names."""
    values = [
        value
        for value in [*graph.inputs, *(out for node in graph for out in node.outputs)]
        if is_float32(value) and value.name and not value.is_initializer()
    ]
    prefix = "trt_ptq.amax"
    flat = ir.val(f"{prefix}.flat", const_value=ir.tensor(np.array([-1])))
    none = ir.val(f"{prefix}.none", const_value=ir.tensor(np.zeros(1, np.float32)))
    zero = ir.val(f"{prefix}.zero", const_value=ir.tensor(np.float32(0)))
    for constant in (flat, none, zero):
        graph.register_initializer(constant)
    graph.outputs.clear()

    def append(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes)
        node.outputs[0].name = f"{prefix}.{len(graph)}"
        graph.append(node)
        return node.outputs[0]

    for value in values:
        size = append("Abs", append("Reshape", value, flat))
        finite = append("Where", append("IsInf", size), zero, size)
        never_empty = append("Concat", finite, none, axis=0)
        amax = append("ReduceMax", never_empty, keepdims=0)
        amax.type = ir.TensorType(ir.DataType.FLOAT)
        graph.outputs.append(amax)
    return [str(value.name) for value in values]
