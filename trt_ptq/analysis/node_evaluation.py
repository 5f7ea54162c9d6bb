"""The value of one node whose inputs are known."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from trt_ptq.types import Array


def evaluate_node(node: onnx.NodeProto, values: Mapping[str, Array], opset: int) -> dict[str, Array] | None:
    """Outputs by name, computed by ONNX's reference implementation; None where it has none, or refuses.

    `values` are the inputs by name; a node with a body, or of another domain than ONNX's own, is not evaluated.
    """
    inputs = [name for name in dict.fromkeys(node.input) if name]
    if node.domain not in ("", "ai.onnx") or any(one.HasField("g") for one in node.attribute):
        return None
    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape)
            for name in inputs
        ],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        results = ReferenceEvaluator(model).run(None, {name: values[name] for name in inputs})
    except Exception:  # the evaluator raises anything; that a value stays unknown is no fault
        return None
    return dict(zip(node.output, results, strict=True))
