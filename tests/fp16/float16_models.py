"""Convert test models to float16, and inspect the results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from trt_ptq.fp16.convert import Float16Model, convert_to_float16
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.types import Array


def scalar(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def vector(name: str, dtype: int = TensorProto.FLOAT, length: int | str = "n") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, [length])


def converted(path: Path, amax: dict[str, float] | None = None) -> tuple[onnx.ModelProto, Float16Model]:
    """Convert the model at `path` to float16, save it, and check the file with ONNX."""
    result = convert_to_float16(load_model(path).to_ir(), amax)
    saved = path.with_suffix(".fp16.onnx")
    save_model(result.model, saved)
    proto = onnx.load(saved)
    onnx.checker.check_model(proto, full_check=True)
    return proto, result


def run(model: Path | onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    """Run without graph optimizations, which corrupt biases of float16 Q/DQ models (see fp16/emulate.py); return the
    first output."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model) if isinstance(model, Path) else model.SerializeToString(), options)
    result: Array = session.run(None, feeds)[0]
    return result


def types(proto: onnx.ModelProto) -> dict[str, int]:
    """The element type of every node output."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.output]}


def ops(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def no_cast_follows_another(proto: onnx.ModelProto) -> bool:
    casts = {node.output[0] for node in proto.graph.node if node.op_type == "Cast"}
    return not any(node.op_type == "Cast" and node.input[0] in casts for node in proto.graph.node)
