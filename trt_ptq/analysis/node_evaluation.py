"""Evaluate a single node with ONNX's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from trt_ptq.onnx_io.domains import ONNX_DOMAINS
from trt_ptq.types import Array


def evaluate_node(node: onnx.NodeProto, values: Mapping[str, Array], opset: int) -> dict[str, Array] | None:
    """Compute the outputs of a node.

    Args:
        node: A node of the default domain without bodies.
        values: Its inputs by name.
        opset: The version of the default operator set.

    Returns:
        The outputs by name; None if the node cannot be evaluated.
    """
    inputs = [name for name in dict.fromkeys(node.input) if name]
    if node.domain not in ONNX_DOMAINS or any(attribute.HasField("g") for attribute in node.attribute):
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
    except Exception:  # the evaluator raises any type; an unknown value is not an error
        return None
    return dict(zip(node.output, results, strict=True))
