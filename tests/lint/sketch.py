"""Small Q/DQ models without defects, unless a test adds one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from trt_ptq.types import Array

IMAGE = (1, 16, 8, 8)
ROWS = (4, 32)
_ZERO = np.int8(0)
_IR_VERSIONS = {10: 5, 12: 7, 17: 8, 19: 9, 21: 10, 23: 11}


class Sketch:
    """A model in the making. Its input "x" is an image, or what `inputs` says; methods return names of tensors."""

    def __init__(self, opset: int = 17, shape: tuple[int, ...] = IMAGE, dtype: int = TensorProto.FLOAT) -> None:
        self.opset = opset
        self.inputs = [helper.make_tensor_value_info("x", dtype, shape)]
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._domains = {"": opset}

    def input(self, name: str, *shape: int, dtype: int = TensorProto.FLOAT) -> str:
        """One more input of the model."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def node(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; its name and its output's are `op_type` with a number."""
        name = f"{op_type}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], name, domain=domain, **attributes))
        self._domains.setdefault(domain, 1)
        return name

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """Add an initializer."""
        return self.tensor(numpy_helper.from_array(np.asarray(values, dtype)))

    def tensor(self, tensor: onnx.TensorProto) -> str:
        """Add an initializer of a type that numpy lacks."""
        tensor.name = f"constant{len(self._constants)}"
        self._constants.append(tensor)
        return tensor.name

    def linear(
        self,
        op_type: str,
        value: str,
        scale: npt.ArrayLike = 0.02,
        zero_point: Array | np.generic | None = _ZERO,
        **attributes: Any,
    ) -> str:
        """QuantizeLinear or DequantizeLinear with constant scale and zero point."""
        inputs = [value, self.constant(scale, np.float32)]
        if zero_point is not None:
            inputs.append(self.constant(zero_point))
        return self.node(op_type, *inputs, **attributes)

    def quantize(self, value: str, *arguments: Any, **attributes: Any) -> str:
        return self.linear("QuantizeLinear", value, *arguments, **attributes)

    def dequantize(self, value: str, *arguments: Any, **attributes: Any) -> str:
        return self.linear("DequantizeLinear", value, *arguments, **attributes)

    def pair(self, value: str = "x", *arguments: Any, **attributes: Any) -> str:
        """QuantizeLinear and DequantizeLinear: symmetric int8, scale 0.02 by default."""
        return self.dequantize(self.quantize(value, *arguments, **attributes), *arguments, **attributes)

    def weight(self, *shape: int, axis: int = 0, dtype: npt.DTypeLike = np.int8) -> str:
        """Integers with a DequantizeLinear behind them, one scale for each index along `axis`."""
        values = np.random.default_rng(0).integers(0, 127, shape).astype(dtype)
        channels = shape[axis]
        return self.dequantize(self.constant(values), np.full(channels, 0.001), np.zeros(channels, dtype), axis=axis)

    def kernel(self, **options: Any) -> str:
        """The weight of a 3x3 convolution from 16 to 16 channels."""
        return self.weight(16, 16, 3, 3, **options)

    def float_kernel(self) -> str:
        return self.constant(np.ones((16, 16, 3, 3)), np.float32)

    def conv(self, value: str, weight: str | None = None, *bias: str) -> str:
        return self.node("Conv", value, weight or self.kernel(), *bias, pads=[1, 1, 1, 1])

    def save(self, path: Path, *outputs: str, dtype: int = TensorProto.FLOAT) -> Path:
        """Write the model."""
        results = [helper.make_tensor_value_info(name, dtype, None) for name in outputs]
        graph = helper.make_graph(self._nodes, "sketch", self.inputs, results, self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._domains.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSIONS[self.opset])
        model = shape_inference.infer_shapes(model)
        for result in model.graph.output:
            result.type.tensor_type.shape.SetInParent()  # the checker requires a shape, of any rank
        onnx.save(model, path)
        return path
