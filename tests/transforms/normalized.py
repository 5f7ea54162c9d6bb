"""Small networks with normalizations and linear layers behind them, as exporters write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.networks import weight, write
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.transforms.result import TransformResult
from trt_ptq.types import Array

WIDTH = 32


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """`inputs` and `output` are names, apart by spaces."""
    return helper.make_node(op_type, inputs.split(), output.split(), **attributes)


def constant(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def gamma(name: str = "gamma") -> onnx.TensorProto:
    """[32], as uneven as in trained models."""
    return constant(name, np.exp(np.random.default_rng([7, *name.encode()]).normal(0, 1.5, WIDTH)))


def network(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    outputs: str = "y",
    rank: int = 3,
    opset: int = 17,
) -> Path:
    """A network of x float32 [n, 8, 32], or [n, 32]."""
    shape: list[str | int] = ["n", 8, WIDTH] if rank == 3 else ["n", WIDTH]
    return write(
        path, nodes, weights, [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], outputs.split(), opset
    )


def layer_norm(path: Path, opset: int = 17) -> Path:
    """x -> LayerNormalization -> h -> two MatMuls -> q, k."""
    nodes = [
        node("LayerNormalization", "x gamma beta", "h", axis=-1),
        node("MatMul", "h wq", "q"),
        node("MatMul", "h wk", "k"),
    ]
    weights = [gamma(), weight("beta", WIDTH), weight("wq", WIDTH, 48), weight("wk", WIDTH, WIDTH)]
    return network(path, nodes, weights, "q k", opset=opset)


def tokens(samples: int = 4, rank: int = 3, seed: int = 0) -> Array:
    """float32 [samples, 8, 32], or [samples, 32]."""
    shape = (samples, 8, WIDTH) if rank == 3 else (samples, WIDTH)
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def outputs(path: Path, **feeds: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def saved(transformed: TransformResult, path: Path) -> Path:
    """The prepared model in a file, which loads again."""
    save_model(transformed.model, path)
    load_model(path)
    return path


def changed_tensors(before: Path, after: Path, **feeds: Array) -> set[str]:
    """The float tensors of both models whose values differ by more than the rounding of floats."""
    values = [_all_values(path, feeds) for path in (before, after)]
    return {
        name
        for name in values[0].keys() & values[1].keys()
        if not np.allclose(values[0][name], values[1][name], rtol=1e-3, atol=1e-4 * np.abs(values[0][name]).max())
    }


def _all_values(path: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    model = onnx.load(path)
    names = [name for one in model.graph.node for name in one.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = zip(names, session.run(None, feeds), strict=True)
    return {name: value for name, value in values if value.dtype == np.float32 and value.size}
