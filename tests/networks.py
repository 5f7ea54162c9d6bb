"""Small networks with seeded weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

CHANNELS = 16


def weight(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """Normally distributed weights, scaled to preserve the magnitude of activations."""
    spread = math.sqrt(2 / max(math.prod(shape[1:]), 1))
    values = np.random.default_rng([seed, *name.encode()]).normal(0, spread, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[str],
    opset: int = 17,
) -> Path:
    """Write a checked ONNX file."""
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "network", inputs, named, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def image_input(name: str = "x", batch: int | str = "n") -> onnx.ValueInfoProto:
    """float32 [n, 16, 8, 8]"""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, CHANNELS, 8, 8])


def residual_cnn(path: Path, opset: int = 17, seed: int = 0) -> Path:
    """Conv-Relu, a residual block, max-pool, a view, Gemm: x [n, 16, 8, 8] -> y [n, 32].

    Tensors: x -> c1 -> r1 -> c2 -> (+ r1) a -> r2 -> p -> f -> y.
    """
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], **pads),
        helper.make_node("Add", ["c2", "r1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"], transB=1),
    ]
    weights = [
        weight("w1", CHANNELS, CHANNELS, 3, 3, seed=seed),
        weight("b1", CHANNELS, seed=seed),
        weight("w2", CHANNELS, CHANNELS, 3, 3, seed=seed),
        weight("w3", 32, CHANNELS * 16, seed=seed),
    ]
    return write(path, nodes, weights, [image_input()], ["y"], opset)


def images(samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """float32 [samples, 16, 8, 8] that vary smoothly, like pictures."""
    random = np.random.default_rng(seed)
    phase = random.uniform(0, 2 * np.pi, (samples, CHANNELS, 1, 1))
    slope = random.uniform(0.2, 0.6, (samples, CHANNELS, 1, 1))
    y, x = np.mgrid[0:8, 0:8]
    pictures: npt.NDArray[np.float32] = np.sin(slope * x + slope[::-1] * y + phase).astype(np.float32)
    return pictures


def two_sided_cnn(path: Path) -> Path:
    """y = conv(relu(x)) + conv(relu(-x)): for inputs without negative values only the first convolution matters."""
    nodes = [helper.make_node("Neg", ["x"], ["minus"])]
    for side, name in (("x", "positive"), ("minus", "negative")):
        nodes.append(helper.make_node("Relu", [side], [f"{name}.in"]))
        nodes.append(helper.make_node("Conv", [f"{name}.in", f"{name}.w"], [name], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Add", ["positive", "negative"], ["y"]))
    weights = [weight(f"{name}.w", CHANNELS, CHANNELS, 3, 3) for name in ("positive", "negative")]
    return write(path, nodes, weights, [image_input()], ["y"])


def sabotaged_cnn(path: Path) -> Path:
    """Four convolutions, x -> c1 -> c2 -> c3 -> y0: the input of c3 has one channel that is 3000 times larger than the
    rest, which c3 scales down again."""
    up, down = np.ones((1, CHANNELS, 1, 1), np.float32), np.ones((1, CHANNELS, 1, 1), np.float32)
    up[0, 0], down[0, 0] = 3000, 1 / 3000
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], **pads),
        helper.make_node("Mul", ["c2", "up"], ["wild"]),
        helper.make_node("Conv", ["wild", "w3"], ["c3"], **pads),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("Conv", ["r3", "w4"], ["y0"], **pads),
        helper.make_node("Relu", ["y0"], ["y"]),
    ]
    kernel = numpy_helper.to_array(weight("w3", CHANNELS, CHANNELS, 3, 3)) * down
    weights = [
        weight("w1", CHANNELS, CHANNELS, 3, 3),
        weight("w2", CHANNELS, CHANNELS, 3, 3),
        numpy_helper.from_array(kernel, "w3"),
        weight("w4", CHANNELS, CHANNELS, 3, 3),
        numpy_helper.from_array(up, "up"),
    ]
    return write(path, nodes, weights, [image_input()], ["y"])


WIDTH = 32


def transformer_block(path: Path) -> Path:
    """Two-head attention and a feed-forward network, each with pre-LayerNorm and a residual connection.

    x [n, s, 32] -> y [n, s, 32], for any sequence length: the sizes of its Reshapes are computed from the shape of x.

    Layers by first output: q, k, v, out, up, down; the MatMuls of attention are scores and context.
    """
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["n1"], axis=-1),
        helper.make_node("Shape", ["x"], ["size"], end=2),
        helper.make_node("Concat", ["size", "two_heads"], ["split"], axis=0),
        *(helper.make_node("MatMul", ["n1", f"w_{projection}"], [projection]) for projection in "qkv"),
        *(helper.make_node("Reshape", [projection, "split"], [f"{projection}_split"]) for projection in "qkv"),
        helper.make_node("Transpose", ["q_split"], ["q_heads"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["k_split"], ["k_heads"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["v_split"], ["v_heads"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["q_heads", "k_heads"], ["scores"]),
        helper.make_node("Mul", ["scores", "quarter"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v_heads"], ["context"]),
        helper.make_node("Transpose", ["context"], ["joined"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["joined", "as_before"], ["merged"]),
        helper.make_node("MatMul", ["merged", "w_out"], ["out"]),
        helper.make_node("Add", ["x", "out"], ["h"]),
        helper.make_node("LayerNormalization", ["h", "gain", "shift"], ["n2"], axis=-1),
        helper.make_node("MatMul", ["n2", "w_up"], ["up"]),
        helper.make_node("Sigmoid", ["up"], ["gate"]),
        helper.make_node("Mul", ["up", "gate"], ["swish"]),
        helper.make_node("MatMul", ["swish", "w_down"], ["down"]),
        helper.make_node("Add", ["h", "down"], ["y"]),
    ]
    weights = [
        *(weight(f"w_{projection}", WIDTH, WIDTH) for projection in ("q", "k", "v", "out")),
        weight("w_up", WIDTH, 2 * WIDTH),
        weight("w_down", 2 * WIDTH, WIDTH),
        numpy_helper.from_array(np.linspace(0.5, 2, WIDTH, dtype=np.float32), "gain"),
        numpy_helper.from_array(np.zeros(WIDTH, np.float32), "shift"),
        numpy_helper.from_array(np.array([2, WIDTH // 2]), "two_heads"),
        numpy_helper.from_array(np.array([0, 0, WIDTH]), "as_before"),
        numpy_helper.from_array(np.array(0.25, np.float32), "quarter"),
    ]
    return write(
        path, nodes, weights, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "s", WIDTH])], ["y"]
    )


def sequences(samples: int, length: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """float32 [samples, length, 32]"""
    return np.random.default_rng(seed).normal(size=(samples, length, WIDTH)).astype(np.float32)
