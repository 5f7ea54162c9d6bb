"""The quantized layers whose sensitivity is measured, and their inputs in FP32 and in INT8."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import onnx_ir as ir

from trt_ptq.analysis.constants import constant_value
from trt_ptq.analysis.subgraph import Rewiring
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.evaluation.error_energy import fake_quantize
from trt_ptq.qdq.plan import QuantizationPlan, QuantizedInput
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.qdq.weights import quantize_weight
from trt_ptq.sensitivity.recorder import ActivationRecorder
from trt_ptq.types import Array

_WITHOUT_WEIGHTS = {"MatMul", "Gemm", "Add"}  # attention and residuals; other nodes only propagate quantization


@dataclass(frozen=True)
class Layer:
    """A node that runs in INT8.

    Attributes:
        node: name of its first output.
        op_type: its operator.
        inputs: its inputs that get Q/DQ.
    """

    node: str
    op_type: str
    inputs: tuple[QuantizedInput, ...]

    @property
    def weights(self) -> dict[str, str]:
        """Its quantized weights: tensor names by feed name."""
        return {feed_name(item): item.tensor for item in self.inputs if item.axis is not None}

    @property
    def activations(self) -> dict[str, str]:
        """Its quantized activations: tensor names by feed name."""
        return {feed_name(item): item.tensor for item in self.inputs if item.axis is None}

    @cached_property
    def rewiring(self) -> Rewiring:
        """Feeds all quantized inputs from outside."""
        return Rewiring(
            tuple(map(feed_name, self.inputs)),
            {(item.node_output, item.index): feed_name(item) for item in self.inputs},
        )

    def without_qdq(self, inputs: Collection[QuantizedInput]) -> Rewiring:
        """Removes the Q/DQ of `inputs` from the Q/DQ model: those of this layer, and of nodes quantized only with it.

        Weights are fed from outside.
        """
        return Rewiring(
            tuple(self.weights),
            {(item.node_output, item.index): item.tensor if item.axis is None else feed_name(item) for item in inputs},
        )


@dataclass(frozen=True)
class LayerInputBatch:
    """The inputs of a layer in one batch, by feed name: `exact` in FP32, and `int8` after Q/DQ."""

    exact: dict[str, Array]
    int8: dict[str, Array]

    def with_int8(self, names: Collection[str]) -> dict[str, Array]:
        """The inputs with only `names` in INT8."""
        return self.exact | {name: self.int8[name] for name in names}


class LayerInputReader:
    """Reads the inputs of the layers of a quantization plan from the float model's `graph` and from recordings.

    Weights in INT8 are those of `stored_weights`, if any; others are rounded to the nearest integer.
    """

    def __init__(
        self,
        graph: ir.Graph,
        opset: int,
        plan: QuantizationPlan,
        table: CalibrationTable,
        stored_weights: StoredWeights | None = None,
    ) -> None:
        self.table = table
        self._stored_weights = stored_weights or {}
        self._plan = plan
        self._opset = opset
        self._nodes = {node.outputs[0].name: node for node in graph}
        self._weight = lru_cache(maxsize=2)(self._read_weight)  # the batches of a layer are read one after the other

    def scale(self, tensor: str) -> np.float32:
        """The INT8 scale of an activation."""
        return self.table.scale(self._plan.range_source(tensor))

    def read(self, layer: Layer, recorder: ActivationRecorder, batch: int) -> LayerInputBatch:
        """Read the inputs of `layer` in the recorded batch number `batch`."""
        exact, int8 = {}, {}
        for item in layer.inputs:
            name = feed_name(item)
            if item.axis is not None:
                exact[name], int8[name] = self._weight(item)
            else:
                exact[name] = values = recorder.value(item.tensor, batch)
                int8[name] = fake_quantize(values, self.scale(item.tensor))
        return LayerInputBatch(exact, int8)

    def exact_weights(self, layer: Layer) -> dict[str, Array]:
        """The weights of `layer` in FP32, by feed name."""
        return {feed_name(item): self._read_exact(item) for item in layer.inputs if item.axis is not None}

    def num_weights(self, layer: Layer) -> int:
        """The number of values of the weights of `layer`."""
        weights = [self._nodes[item.node_output].inputs[item.index] for item in layer.inputs if item.axis is not None]
        return sum(math.prod(weight.shape.numpy()) for weight in weights if weight is not None and weight.shape)

    def _read_exact(self, item: QuantizedInput) -> Array:
        value = self._nodes[item.node_output].inputs[item.index]
        assert value is not None
        return constant_value(value, self._opset)

    def _read_weight(self, item: QuantizedInput) -> tuple[Array, Array]:
        """A weight in FP32, and after quantization to INT8 and back."""
        exact = self._read_exact(item)
        assert item.axis is not None
        if stored := self._stored_weights.get((item.tensor, item.axis)):
            values, scales = stored.values(), stored.scales
        else:
            quantized = quantize_weight(exact, item.axis, item.tensor)
            values, scales = quantized.values, quantized.scales
        return exact, values * scales.reshape([-1 if axis == item.axis else 1 for axis in range(exact.ndim)])


def int8_layers(plan: QuantizationPlan) -> list[Layer]:
    """The weighted layers (weight-only ones too), embeddings, attention MatMuls and residual Adds, in graph order."""
    inputs: dict[str, list[QuantizedInput]] = {}
    for item in plan.inputs:
        inputs.setdefault(item.node_output, []).append(item)
    layers = [
        Layer(node.output, node.op_type, tuple(inputs.get(node.output, ())))
        for node in plan.nodes
        if node.is_int8 or node.weight_only
    ]
    return [layer for layer in layers if layer.weights or layer.op_type in _WITHOUT_WEIGHTS]


def feed_name(item: QuantizedInput) -> str:
    return f"trt_ptq.read.{item.index}"
