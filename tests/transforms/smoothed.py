"""Models whose channels are scaled, and what is asked of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.transforms.normalized import WIDTH, outputs, tokens
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.transforms.smoothquant import find_pairs, scale_pairs
from trt_ptq.types import Array

UNEVEN = np.exp2(np.linspace(-4, 4, WIDTH)).astype(np.float32)


def scaled(path: Path, scales: Array = UNEVEN) -> Path:
    """The model at `path` with all its pairs scaled."""
    model = load_model(path).to_ir()
    pairs, _ = find_pairs(model.graph)
    assert pairs
    scale_pairs(model.graph, [(pair, scales) for pair in pairs])
    result = path.with_name("scaled.onnx")
    save_model(model, result)
    onnx.checker.check_model(result)
    return result


def assert_same_function(before: Path, after: Path, rank: int = 3) -> None:
    x = tokens(rank=rank)
    for old, new in zip(outputs(before, x=x), outputs(after, x=x), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5 * np.abs(old).max())


def value_of(path: Path, tensor: str, x: Array) -> Array:
    """The values of an inner tensor."""
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    inner = path.with_name("inner.onnx")
    onnx.save(proto, inner)
    return outputs(inner, x=x)[-1]


def initializer(path: Path, name: str) -> Array:
    return next(numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer if one.name == name)


def found(path: Path) -> dict[str, list[str]]:
    """Tensors that make pairs, and the first outputs of their linear layers."""
    pairs, _ = find_pairs(load_model(path).to_ir().graph)
    return {str(pair.tensor.name): [str(one.node.outputs[0].name) for one in pair.linears] for pair in pairs}


def skipped(path: Path) -> list[str]:
    return [str(one) for one in find_pairs(load_model(path).to_ir().graph)[1]]
