"""Types of tensors that ONNX's shape inference does not know, asked of ONNX Runtime.

ONNX has no inference for ONNX Runtime's own operators (com.microsoft), and lacks it for some of its own.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import TensorProto, helper

from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.domains import runnable_part
from trt_ptq.onnx_io.external_data import ExternalWeights

_TENSOR, _END = "tensor(", ")"
_ELEMENT_TYPES = {
    "float": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "double": TensorProto.DOUBLE,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
    **{
        f"{sign}int{bits}": getattr(TensorProto, f"{sign}int{bits}".upper())
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


def untyped_tensors(proto: onnx.ModelProto) -> list[str]:
    """Names of the tensors of the main graph, outputs of nodes, that have no type."""
    typed = {value.name for value in (*proto.graph.output, *proto.graph.value_info) if _has_type(value)}
    return [name for node in proto.graph.node for name in node.output if name and name not in typed]


def types_of_onnx_runtime(
    proto: onnx.ModelProto, names: Collection[str], external: ExternalWeights
) -> list[onnx.ValueInfoProto]:
    """The types and shapes of the tensors `names`, as far as ONNX Runtime infers them. Nothing runs.

    Args:
        proto: The model.
        names: Names of outputs of nodes.
        external: Its external weights.
    """
    import onnxruntime as ort

    from trt_ptq.onnx_io.ort_session import create_session, session_options

    question = _question(proto, names)
    if not question.graph.output:
        return []
    options = session_options(threads=1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = create_session(question, external.folder, "the model", options)
    except ModelError:
        return []  # the types remain unknown, and are reported so
    return [
        helper.make_tensor_value_info(output.name, _ELEMENT_TYPES[element_type], output.shape)
        for output in session.get_outputs()
        if (element_type := output.type.removeprefix(_TENSOR).removesuffix(_END)) in _ELEMENT_TYPES
    ]


def _question(proto: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The part of the model that ONNX Runtime can run, with outputs `names`; large weights are inputs instead."""
    question = runnable_part(proto, large_weights=False)
    computed = {name for node in question.graph.node for name in node.output}
    wanted = [name for name in names if name in computed]
    question.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    return question


def _has_type(value: onnx.ValueInfoProto) -> bool:
    """Whether the type is known; that of a sequence or the like is not asked for."""
    return value.type.WhichOneof("value") not in (None, "tensor_type") or value.type.tensor_type.elem_type != 0
