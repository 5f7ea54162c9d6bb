"""The layers whose INT8 is measured, and what they read in float and in INT8."""

from __future__ import annotations

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
from trt_ptq.qdq.weights import quantize_weight
from trt_ptq.sensitivity.recorder import ActivationRecorder
from trt_ptq.types import Array

_WITHOUT_WEIGHTS = {"MatMul", "Gemm", "Add"}  # attention, and residuals; what only hands INT8 on is no layer


@dataclass(frozen=True)
class Layer:
    """A node that runs in INT8, by its first output, and its inputs that get Q/DQ."""

    node: str
    op_type: str
    inputs: tuple[QuantizedInput, ...]

    @property
    def weights(self) -> dict[str, str]:
        """Tensors that are weights, by the name under which they are fed."""
        return {_feed_name(one): one.tensor for one in self.inputs if one.axis is not None}

    @property
    def activations(self) -> dict[str, str]:
        """The other tensors, by the name under which they are fed."""
        return {_feed_name(one): one.tensor for one in self.inputs if one.axis is None}

    @cached_property
    def rewiring(self) -> Rewiring:
        """All these inputs fed from outside."""
        return Rewiring(
            tuple(map(_feed_name, self.inputs)), {(one.node_output, one.index): _feed_name(one) for one in self.inputs}
        )

    def in_float(self, inputs: Collection[QuantizedInput]) -> Rewiring:
        """On the Q/DQ model: `inputs`, those of this layer and of what is in INT8 with it only, without Q/DQ."""
        return Rewiring(
            tuple(self.weights),
            {(one.node_output, one.index): one.tensor if one.axis is None else _feed_name(one) for one in inputs},
        )


@dataclass(frozen=True)
class LayerInputBatch:
    """What a layer reads in one batch, by the name under which it is fed: `exact`, and as Q/DQ leaves it."""

    exact: dict[str, Array]
    int8: dict[str, Array]

    def with_int8(self, names: Collection[str]) -> dict[str, Array]:
        """Only `names` in INT8."""
        return self.exact | {name: self.int8[name] for name in names}


class LayerInputReader:
    """Reads the inputs of layers of `plan`, of which `graph` is the float model's."""

    def __init__(self, graph: ir.Graph, opset: int, plan: QuantizationPlan, table: CalibrationTable) -> None:
        self.table = table
        self._plan = plan
        self._opset = opset
        self._nodes = {node.outputs[0].name: node for node in graph}
        self._weight = lru_cache(maxsize=2)(self._read_weight)  # the batches of one layer follow one another

    def scale(self, tensor: str) -> np.float32:
        """Of an activation."""
        return self.table.scale(self._plan.range_source(tensor))

    def of(self, layer: Layer, recorder: ActivationRecorder, batch: int) -> LayerInputBatch:
        """The inputs of `layer` in a recorded batch."""
        exact, int8 = {}, {}
        for one in layer.inputs:
            if one.axis is not None:
                exact[_feed_name(one)], int8[_feed_name(one)] = self._weight(one)
            else:
                exact[_feed_name(one)] = values = recorder.value(one.tensor, batch)
                int8[_feed_name(one)] = fake_quantize(values, self.scale(one.tensor))
        return LayerInputBatch(exact, int8)

    def exact_weights(self, layer: Layer) -> dict[str, Array]:
        """In float, by the name under which they are fed."""
        return {_feed_name(one): self._weight(one)[0] for one in layer.inputs if one.axis is not None}

    def _read_weight(self, one: QuantizedInput) -> tuple[Array, Array]:
        """In float, and as DequantizeLinear makes it of its INT8."""
        value = self._nodes[one.node_output].inputs[one.index]
        assert value is not None and one.axis is not None
        exact = constant_value(value, self._opset)
        rounded = quantize_weight(exact, one.axis, one.tensor)
        spread = rounded.scales.reshape([-1 if axis == one.axis else 1 for axis in range(exact.ndim)])
        return exact, rounded.values * spread


def int8_layers(plan: QuantizationPlan) -> list[Layer]:
    """The weighted layers, embeddings and residual Adds that run in INT8, in graph order."""
    inputs: dict[str, list[QuantizedInput]] = {}
    for one in plan.inputs:
        inputs.setdefault(one.node_output, []).append(one)
    layers = [Layer(one.output, one.op_type, tuple(inputs.get(one.output, ()))) for one in plan.nodes if one.is_int8]
    return [one for one in layers if one.weights or one.op_type in _WITHOUT_WEIGHTS]


def _feed_name(one: QuantizedInput) -> str:
    return f"trt_ptq.read.{one.index}"
