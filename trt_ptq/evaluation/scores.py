"""Which outputs of a model hold scores of classes, so that their largest entry is an answer."""

from __future__ import annotations

import onnx

from trt_ptq.onnx_io.opset import onnx_opset

_PASS_ON = {"Identity", "Cast", "Dropout"}
_NORMALIZED = {"Softmax", "LogSoftmax"}
_READ_AS_SCORES = {*_PASS_ON, *_NORMALIZED, "ArgMax", "TopK", "ReduceMax"}
_OTHER_QUANTITIES = (
    "box",
    "coord",
    "delta",
    "embed",
    "feat",
    "hidden",
    "landmark",
    "latent",
    "loc",
    "pool",
    "pose",
    "regress",
)


def score_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Find the outputs of `model` that hold scores of classes along their last axis.

    The graph decides, conservatively: an output of rank 2, or of rank 3 for sequences, that comes from a Softmax or
    LogSoftmax over the last axis, or from a linear layer (Gemm, or MatMul by a constant, with or without an Add) that
    nothing but a Softmax, ArgMax and the like reads on. An output whose name speaks of another quantity ("embedding",
    "boxes", "hidden_state" and so on) does not count; nor does what ends in another operator, such as a feature map of
    a convolution, a normalized embedding, or independent labels of a Sigmoid.
    """
    graph = _Graph(model.graph, onnx_opset(model))
    return frozenset(output.name for output in model.graph.output if graph.holds_scores(output))


class _Graph:
    """A graph with its producers, readers and constants by tensor name."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self._opset = opset
        self._producers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, set[str]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, set()).add(node.op_type)
        self._constants = {tensor.name for tensor in graph.initializer}
        self._constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}

    def holds_scores(self, output: onnx.ValueInfoProto) -> bool:
        tensor = output.type.tensor_type
        rank = len(tensor.shape.dim) if tensor.HasField("shape") else None
        if rank not in (2, 3) or any(word in output.name.lower() for word in _OTHER_QUANTITIES):
            return False
        name = output.name
        while self._is_read_as_scores(name) and (node := self._producers.get(name)) is not None:
            if node.op_type not in _PASS_ON:
                return self._is_classifier(node, rank)
            name = node.input[0]
        return False

    def _is_read_as_scores(self, name: str) -> bool:
        return self._readers.get(name, set()) <= _READ_AS_SCORES

    def _is_classifier(self, node: onnx.NodeProto, rank: int) -> bool:
        if node.op_type in _NORMALIZED:
            default = -1 if self._opset >= 13 else 1
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), default)
            return axis in (-1, rank - 1)
        return self._is_linear(node)

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        """Whether `node` is a linear layer, or adds a constant to one."""
        if node.op_type == "Gemm":
            return True
        if node.op_type == "MatMul":
            return self._is_constant(node.input[1])
        if node.op_type != "Add":
            return False
        summands = [name for name in node.input if not self._is_constant(name)]
        layer = self._producers.get(summands[0]) if len(summands) == 1 else None
        return layer is not None and layer.op_type == "MatMul" and self._is_linear(layer)

    def _is_constant(self, name: str) -> bool:
        """Whether `name` is an initializer or constant, possibly transposed, cast or dequantized."""
        while name not in self._constants:
            node = self._producers.get(name)
            if node is None or node.op_type not in ("Transpose", "Cast", "Identity", "DequantizeLinear"):
                return False
            name = node.input[0]
        return True
