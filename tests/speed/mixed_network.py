"""A network in which INT8 pays for some layers, and plans of it by TensorRT-RTX."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper

from tests.networks import weight, write

WIDE = 256
SHAPE = (8, WIDE, 14, 14)


def wide_and_depthwise(path: Path) -> Path:
    """x -> c1, a 3x3 convolution bound by arithmetic -> d2, a depthwise one bound by memory -> y, 1x1.

    All nodes are named, as exporters name them.
    """
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "wide", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["d2"], "depthwise", pads=[1, 1, 1, 1], group=WIDE),
        helper.make_node("Relu", ["d2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3"], ["y"], "pointwise"),
    ]
    weights = [
        *(weight("w1", WIDE, WIDE, 3, 3), weight("b1", WIDE)),
        *(weight("w2", WIDE, 1, 3, 3), weight("b2", WIDE)),
        weight("w3", WIDE, WIDE, 1, 1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    return write(path, nodes, weights, [x], ["y"])
