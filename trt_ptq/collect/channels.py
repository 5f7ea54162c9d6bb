"""What the channels of a tensor hold: the largest magnitude of each, and a few rows to try things on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.calibrators.batches import BatchSource, sample_count
from trt_ptq.calibrators.errors import DataError
from trt_ptq.collect.session import create_session, run_session
from trt_ptq.graph.model import Model

ENOUGH = 64  # samples
_MOST_ROWS = 512
_MOST_BYTES = 2**28  # of all rows together

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """Of one tensor over the same samples: `amax` [channels] over all its rows, and some `rows` [n, channels]."""

    amax: Floats
    rows: Floats


def sample_channels(
    model: Model, source: BatchSource, tensors: Mapping[str, int], samples: int = ENOUGH
) -> dict[str, Channels]:
    """The channels of `tensors`, by name, whose last axis has the number of channels given there.

    Over the first batches of `source` that hold `samples` samples. The magnitudes are taken inside the model. Rows are
    spread evenly over each batch, at most 512 a tensor and 256 MB in all.

    Raises:
        DataError: a batch on which the model fails, or no batch.
    """
    session = create_session(_with_channels(model, tensors), model.external.folder, str(model.path))
    wanted = min(_MOST_ROWS, max(_MOST_BYTES // (4 * sum(tensors.values())), 1))
    amax = {name: np.zeros(channels, np.float32) for name, channels in tensors.items()}
    rows: dict[str, list[Floats]] = {name: [] for name in tensors}
    seen = 0
    for batch in source:
        results = iter(run_session(session, batch))
        count = sample_count(batch.feeds)
        for name, found in zip(tensors, results, strict=False):
            amax[name] = np.maximum(amax[name], found)
            every = next(results)
            quota = max(wanted * count // samples, 1)
            rows[name].append(every[:: max(-(-len(every) // quota), 1)].copy())
        seen += count
        if seen >= samples:
            break
    if not seen:
        raise DataError("there is no batch to measure the channels on: give at least one")
    return {name: Channels(amax[name], np.concatenate(rows[name])[:_MOST_ROWS]) for name in tensors}


def _with_channels(model: Model, tensors: Mapping[str, int]) -> onnx.ModelProto:
    """The part of the model that computes, for each tensor, its channels' amax and the tensor as rows."""
    part = model.to_ir()
    graph = part.graph
    values = {value.name: value for node in graph for value in node.outputs}
    prefix = "trt_ptq.channels"
    graph.outputs.clear()

    def constant(name: str, *numbers: float) -> ir.Value:
        value = ir.val(f"{prefix}.{name}", const_value=ir.tensor(np.array(numbers)))
        graph.register_initializer(value)
        return value

    def append(op_type: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        node = ir.node(op_type, inputs, attributes)
        node.outputs[0].name = f"{prefix}.{len(graph)}"
        graph.append(node)
        return node.outputs[0]

    first = constant("first", 0) if model.opset >= 18 else None
    for index, (name, channels) in enumerate(tensors.items()):
        rows = append("Reshape", values[name], constant(f"shape.{index}", -1, channels))
        size = append("Abs", rows)
        amax = (
            append("ReduceMax", size, first, keepdims=0) if first else append("ReduceMax", size, axes=[0], keepdims=0)
        )
        for output in (amax, rows):
            output.type = ir.TensorType(ir.DataType.FLOAT)
            graph.outputs.append(output)
    return ir.to_proto(passes.RemoveUnusedNodesPass()(part).model)
