"""Round the INT8 weights of linear layers by GPTQ, before it is known which layers will be quantized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.analysis.constants import constant_value
from trt_ptq.analysis.dataflow import name_of
from trt_ptq.calibration.measurements.second_moments import DEFAULT_SAMPLES, measure_second_moments
from trt_ptq.calibrators.table.calibration_table import INT8_MAX
from trt_ptq.choices import Nonfinite
from trt_ptq.onnx_io.external_data import read_once
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.insert import remove_unused
from trt_ptq.qdq.node_selection import select_weight_only
from trt_ptq.qdq.plan import QuantizationPlan, plan_quantization
from trt_ptq.qdq.stored_weights import StoredWeight, StoredWeights, WeightKey, WeightStore
from trt_ptq.qdq.weights import channel_scales
from trt_ptq.transforms.gptq import ErrorFeedback, error_feedback, round_with_feedback
from trt_ptq.types import Array, BatchSource

_LINEAR = ("MatMul", "Gemm")


@dataclass(frozen=True)
class _Layer:
    """A weight, as a linear layer reads it, and its axis of output channels."""

    weight: ir.Value
    axis: int

    @property
    def key(self) -> WeightKey:
        return name_of(self.weight), self.axis

    @property
    def channels(self) -> int:
        """The number of input channels."""
        assert self.weight.shape is not None
        return int(self.weight.shape.numpy()[1 - self.axis])


def round_weights(
    model: Model,
    source: BatchSource,
    file: Path,
    samples: int = DEFAULT_SAMPLES,
    *,
    nonfinite: Nonfinite = "refuse",
    limit_bytes: int | None = None,
) -> StoredWeights:
    """Round the weights of all MatMul and Gemm that can be quantized, by the second moments of their float inputs.

    The result does not depend on ranges, nor on which layers will be quantized. Embeddings are not rounded here, nor
    weights that layers share which have different inputs, or which read them along different axes.

    Args:
        model: The float model.
        source: The calibration data.
        file: Where the integers are written.
        samples: Number of samples to measure, from the start of `source`.
        nonfinite: See `measure_second_moments`.
        limit_bytes: See `measure_second_moments`.

    Returns:
        The weights, for `insert_qdq`.

    Raises:
        DataError, UsageError: See `measure_second_moments`.
        ModelError: A weight has NaN or infinite values.
        OutputError: `file` cannot be written.
    """
    layers = _layers_by_input(model)
    if not layers:
        return {}
    store = WeightStore(file)
    stored = {}
    tensors = {name: weights[0].channels for name, weights in layers.items()}
    measured = measure_second_moments(model, source, tensors, samples, nonfinite=nonfinite, limit_bytes=limit_bytes)
    for name, moments in measured:
        feedback = error_feedback(moments)
        for layer in layers[name]:
            stored[layer.key] = _rounded(layer, feedback, store, model.opset)
    return stored


def replace_weights(graph: ir.Graph, plan: QuantizationPlan, stored_weights: StoredWeights) -> None:
    """Put dequantized weights into a float model, in place: rounded to the nearest integer, they are the same again.

    Args:
        graph: The float model.
        plan: Which of its nodes are quantized; others keep their weights.
        stored_weights: The rounded weights.
    """
    nodes = {name_of(node.outputs[0]): node for node in graph}
    reads = [read for read in plan.inputs if read.axis is not None and (read.tensor, read.axis) in stored_weights]
    quantized = {(nodes[read.node_output], read.index) for read in reads}
    replaced: dict[ir.Value, ir.Value] = {}
    for read in reads:
        assert read.axis is not None
        node = nodes[read.node_output]
        weight = node.inputs[read.index]
        assert weight is not None
        if weight not in replaced:
            is_shared = any((use.node, use.idx) not in quantized for use in weight.uses())
            name = f"{weight.name}.rounded" if is_shared else read.tensor
            replaced[weight] = _dequantized(name, stored_weights[read.tensor, read.axis], read.axis)
        node.replace_input_with(read.index, replaced[weight])
    for weight, rounded in replaced.items():
        remove_unused(graph, weight)
        graph.register_initializer(rounded)


def _dequantized(name: str, stored: StoredWeight, axis: int) -> ir.Value:
    scales = stored.scales if axis == 1 else stored.scales[:, None]
    tensor = ir.LazyTensor(
        lambda: ir.tensor(stored.values() * scales, name=name), ir.DataType.FLOAT, ir.Shape(stored.shape), name=name
    )
    return ir.val(name, const_value=tensor)


def _layers_by_input(model: Model) -> dict[str, list[_Layer]]:
    """The weights to round by the input that they multiply, both in graph order."""
    graph = model.to_ir().graph
    nodes = {name_of(node.outputs[0]): node for node in graph}
    weight_only = {*select_weight_only(graph, ["*"])} if plan_quantization(graph).nodes else set()
    plan = plan_quantization(graph, weight_only=weight_only)
    reads: dict[str, set[tuple[str, int]]] = {}  # by weight: inputs that it multiplies, and its axis there
    layers: dict[str, dict[WeightKey, _Layer]] = {}
    for read in plan.inputs:
        if read.axis is None:
            continue
        node = nodes[read.node_output]
        weight, data = node.inputs[read.index], name_of(node.inputs[0])
        assert weight is not None
        is_linear = node.op_type in _LINEAR and not node.attributes.get_int("transA", 0)
        reads.setdefault(read.tensor, set()).add((data if is_linear else "", read.axis))
        layer = _Layer(weight, read.axis)
        layers.setdefault(data, {})[layer.key] = layer
    rounded = {
        data: [layer for layer in weights.values() if reads[name_of(layer.weight)] == {(data, layer.axis)}]
        for data, weights in layers.items()
    }
    return {data: weights for data, weights in rounded.items() if weights}


def _rounded(layer: _Layer, feedback: ErrorFeedback, store: WeightStore, opset: int) -> StoredWeight:
    def round_values(values: Array) -> StoredWeight:
        scales = _stable(channel_scales(values, layer.axis, name_of(layer.weight)))
        weight = values if layer.axis == 1 else values.T
        integers = round_with_feedback(weight, scales, feedback)
        return store.add(integers if layer.axis == 1 else integers.T, scales)

    tensor = layer.weight.const_value
    return round_values(constant_value(layer.weight, opset)) if tensor is None else read_once(tensor, round_values)


def _stable(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scales that follow from the dequantized weights too: 127 s / 127 need not be s in float32."""
    stable: npt.NDArray[np.float32] = scales * np.float32(INT8_MAX) / np.float32(INT8_MAX)
    return stable
