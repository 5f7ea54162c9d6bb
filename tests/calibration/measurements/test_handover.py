"""Which tensors a pass over a part of a model hands over to the next."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from trt_ptq.calibration.measurements.handover import handed_over

_CHAIN = """
<ir_version: 8, opset_import: ["": 17]>
g (float[n] x) => (float[n] e) {
    a = Relu(x)
    side = Neg(a)
    unused = Abs(a)
    b = Exp(a)
    c = Add(b, side)
    d = Sqrt(c)
    e = Mul(d, a)
}
"""
_BODY = """
<ir_version: 8, opset_import: ["": 17]>
g (float[n] x, bool flag) => (float[n] c) {
    a = Relu(x)
    b = If (flag) <
        then_branch = yes () => (float[n] y) { y = Neg(a) },
        else_branch = no () => (float[n] z) { z = Abs(a) }
    >
    c = Exp(b)
}
"""


def graph(text: str, dtype: ir.DataType | None = ir.DataType.FLOAT) -> ir.Graph:
    parsed = ir.from_onnx_text(text).graph
    for node in parsed:
        for value in node.outputs:
            value.type = ir.TensorType(dtype) if dtype else None
    return parsed


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([["a"], ["c"], ["e"]], [("a",), ("a", "c")]),
        ([["b"], ["d"]], [("b", "side")]),
        ([["c"], ["b"]], [("b",)]),  # out of order: it is known by then
        ([["x"], ["b"]], [()]),  # nothing was computed
        ([["b"]], []),
    ],
    ids=str,
)
def test_what_later_tensors_read_is_handed_over(groups: list[list[str]], expected: list[tuple[str, ...]]) -> None:
    assert handed_over(graph(_CHAIN), groups) == expected


@pytest.mark.parametrize("dtype", [ir.DataType.STRING, ir.DataType.BFLOAT16, None], ids=str)
def test_tensors_that_cannot_be_stored_are_not_handed_over(dtype: ir.DataType | None) -> None:
    assert handed_over(graph(_CHAIN, dtype), [["a"], ["b"]]) == [None]


def test_sequences_are_not_handed_over() -> None:
    parsed = graph(_CHAIN)
    parsed[0].outputs[0].type = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    assert handed_over(parsed, [["a"], ["b"]]) == [None]


def test_nothing_is_handed_over_to_a_body_that_may_read_any_tensor() -> None:
    assert handed_over(graph(_BODY), [["a"], ["c"]]) == [None]
    assert handed_over(graph(_BODY), [["b"], ["c"]]) == [("b",)]
