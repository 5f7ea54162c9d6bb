"""Transformers: products with weights, and attention on request."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.networks import weight
from tests.qdq.patterns.converted import Convert, bias, node
from trt_ptq.types import Array


def attention_block(length: str | int = "s") -> tuple[list[NodeProto], list[onnx.TensorProto]]:
    """LayerNorm, attention with a mask, LayerNorm, feed-forward with GELU: x, mask -> y."""
    heads = numpy_helper.from_array(np.array([0, 0, 4, 16], np.int64), "heads")
    merged = numpy_helper.from_array(np.array([0, 0, 64], np.int64), "merged")
    numbers = {"eighth": 0.25, "root": 2**0.5, "one": 1.0, "half": 0.5, "very_negative": -1e38}
    nodes = [node("LayerNormalization", ["x", "g1", "b1"], ["n1"], axis=-1)]
    for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["n1", f"w_{part}"], [f"{part}0"]),
            node("Reshape", [f"{part}0", "heads"], [f"{part}1"]),
            node("Transpose", [f"{part}1"], [part], perm=perm),
        ]
    nodes += [
        node("MatMul", ["q", "k"], ["qk"]),
        node("Mul", ["qk", "eighth"], ["scaled"]),
        node("Mul", ["mask", "very_negative"], ["penalty"]),
        node("Add", ["scaled", "penalty"], ["masked"]),
        node("Softmax", ["masked"], ["probabilities"], axis=-1),
        node("MatMul", ["probabilities", "v"], ["pv"]),
        node("Transpose", ["pv"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "merged"], ["joined"]),
        node("MatMul", ["joined", "w_o"], ["o"]),
        node("Add", ["o", "x"], ["r1"]),
        node("LayerNormalization", ["r1", "g2", "b2"], ["n2"], axis=-1),
        node("MatMul", ["n2", "w_1"], ["f1"]),
        node("Div", ["f1", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["e1"]),
        node("Mul", ["f1", "e1"], ["m"]),
        node("Mul", ["m", "half"], ["gelu"]),
        node("MatMul", ["gelu", "w_2"], ["f2"]),
        node("Add", ["f2", "r1"], ["y"]),
    ]
    weights = [weight(f"w_{part}", 64, 64) for part in ("q", "k", "v", "o")]
    weights += [weight("w_1", 64, 256), weight("w_2", 256, 64), heads, merged]
    weights += [bias(name, 64) for name in ("g1", "b1", "g2", "b2")]
    weights += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()]
    return nodes, weights


def attention_feeds(length: int = 12) -> dict[str, Array]:
    random = np.random.default_rng(0)
    mask = np.zeros((4, 1, 1, length), np.float32)
    mask[:, :, :, length - 3 :] = 1
    return {"x": random.normal(size=(4, length, 64)).astype(np.float32), "mask": mask}


def attention_inputs(length: str | int = "s") -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", length, 64]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, 1, length]),
    ]


def test_only_products_with_weights_are_quantized_in_a_transformer_block(convert: Convert) -> None:
    nodes, weights = attention_block()
    result = convert(nodes, weights, attention_inputs(), attention_feeds())
    assert result.pairs == {
        ("n1", "q0"),
        ("n1", "k0"),
        ("n1", "v0"),
        ("joined", "o"),
        ("n2", "f1"),
        ("gelu", "f2"),
    }
    assert result.float_reasons == {
        "qk": "attention: runs in INT8 only on request",
        "pv": "attention: runs in INT8 only on request",
    }
    assert result.noise < 1e-3


def test_attention_runs_in_int8_on_request_and_its_mask_sets_no_scale(convert: Convert) -> None:
    nodes, weights = attention_block()
    result = convert(nodes, weights, attention_inputs(), attention_feeds(), attention=True)
    assert {("q", "qk"), ("k", "qk"), ("probabilities", "pv"), ("v", "pv")} < result.pairs
    assert not result.float_reasons
    assert max(result.scales.values()) < 1
    assert result.noise < 1e-3


def test_attention_over_a_long_sequence_is_excluded_even_on_request(convert: Convert) -> None:
    nodes, weights = attention_block()
    result = convert(nodes, weights, attention_inputs(600), attention_feeds(600), attention=True)
    assert set(result.float_reasons) == {"qk", "pv"}
    assert "600 positions" in result.float_reasons["pv"]
