"""Which ranges can be inferred from others, and which cannot."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models import detector, minilm, recogniser
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import range_method
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.data.open import open_data
from trt_ptq.onnx_io.load import load_model
from trt_ptq.qdq.ranges.infer_ranges import infer_ranges


def graph(body: str, inputs: str = "float[1,4,8,8] x", outputs: str = "float[1,4,8,8] y") -> ir.Graph:
    text = f'<ir_version: 9, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    return ir.from_proto(model).graph


def derived(body: str, ranges: dict[str, float], **ends: str) -> dict[str, float]:
    return {tensor.name: tensor.amax for tensor in infer_ranges(graph(body, **ends), CalibrationTable(ranges))}


@pytest.mark.parametrize(
    "operator",
    [
        "Identity (x)",
        "Reshape (x, shape)",
        "Transpose <perm = [0, 2, 1, 3]> (x)",
        "Flatten (x)",
        "Squeeze (x)",
        "Unsqueeze (x, axes)",
    ],
)
@pytest.mark.parametrize(("known", "wanted"), [("x", "y"), ("y", "x")])
def test_the_same_values_in_another_arrangement_have_the_same_range_both_ways(
    operator: str, known: str, wanted: str
) -> None:
    constants = "shape = Constant <value_ints = [4, 64]> () axes = Constant <value_ints = [0]> ()"
    assert derived(f"{constants} y = {operator}", {known: 3.0}, outputs="float y")[wanted] == 3.0


def test_a_relu_output_takes_the_range_of_its_input() -> None:
    assert derived("y = Relu (x)", {"x": 5.0}) == {"y": 5.0}


def test_a_relu_input_gets_no_range_from_the_output_since_negative_values_may_be_larger() -> None:
    assert derived("y = Relu (x)", {"y": 5.0}) == {}


def test_a_max_pool_output_takes_the_range_of_its_input() -> None:
    assert derived("y = MaxPool <kernel_shape = [2, 2]> (x)", {"x": 5.0}) == {"y": 5.0}


def test_a_max_pool_input_gets_no_range_from_the_output_when_it_may_be_negative() -> None:
    assert derived("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", {"y": 5.0}) == {}


def test_a_max_pool_input_after_a_relu_takes_the_range_of_the_output() -> None:
    body = "r = Relu (x) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)"
    assert derived(body, {"y": 5.0}) == {"r": 5.0}


def test_a_max_pool_that_skips_values_gives_its_input_no_range() -> None:
    body = "r = Relu (x) y = MaxPool <kernel_shape = [2, 2], strides = [3, 3]> (r)"
    assert derived(body, {"y": 5.0}) == {}


def test_a_concat_gives_its_range_to_its_inputs() -> None:
    assert derived("y = Concat <axis = 1> (a, b)", {"y": 5.0}, inputs="float[1] a, float[1] b") == {"a": 5.0, "b": 5.0}


def test_a_concat_output_takes_the_largest_range_of_its_inputs() -> None:
    assert derived("y = Concat <axis = 0> (a, b)", {"a": 2.0, "b": 5.0}, inputs="float[1] a, float[1] b") == {"y": 5.0}


def test_a_concat_output_gets_no_range_while_one_input_has_none() -> None:
    assert derived("y = Concat <axis = 0> (a, b)", {"a": 2.0}, inputs="float[1] a, float[1] b") == {}


def test_a_concat_with_a_constant_gives_its_output_no_range() -> None:
    body = "c = Constant <value_floats = [9.0]> () y = Concat <axis = 0> (a, c)"
    assert derived(body, {"a": 2.0}, inputs="float[1] a") == {}


def test_ranges_propagate_over_several_operators() -> None:
    body = "t = Transpose (x) r = Relu (t) p = MaxPool <kernel_shape = [2, 2]> (r) y = Identity (p)"
    assert derived(body, {"x": 5.0}) == {"t": 5.0, "r": 5.0, "p": 5.0, "y": 5.0}


def test_a_tensor_gets_the_smallest_range_that_covers_it() -> None:
    body = "r = Relu (x) y = Concat <axis = 0> (r, b)"
    ranges = {"x": 2.0, "y": 7.0}
    assert derived(body, ranges, inputs="float[1] x, float[1] b")["r"] == 2.0


def test_equal_values_take_precedence_over_a_smaller_range() -> None:
    body = "t = Identity (x) y = Concat <axis = 0> (t, b)"
    assert derived(body, {"x": 4.0, "y": 3.0}, inputs="float[1] x, float[1] b")["t"] == 4.0


def test_a_tensor_with_an_unusable_scale_in_the_table_gets_no_inferred_range() -> None:
    table = CalibrationTable({"x": 4.0}, tensors_without_range=("y",))
    assert infer_ranges(graph("y = Relu (x)"), table) == ()


def test_a_custom_operator_of_the_same_name_passes_no_range_on() -> None:
    text = '<ir_version: 9, opset_import: ["": 17, "mine": 1]> g (float[1] x) => (float[1] y) { y = mine.Relu (x) }'
    model = ir.from_proto(onnx.parser.parse_model(text))
    assert infer_ranges(model.graph, CalibrationTable({"x": 4.0})) == ()


def test_an_inferred_range_names_the_tensor_of_the_table_and_the_rule() -> None:
    (tensor,) = infer_ranges(graph("y = Relu (x)"), CalibrationTable({"x": 4.0}))
    assert (tensor.source, tensor.rule) == ("x", "Relu output from its input")


@given(st.permutations(["x", "t", "r", "p", "y"]), st.integers(1, 4))
def test_inferred_ranges_do_not_depend_on_the_order_of_the_table(names: list[str], count: int) -> None:
    body = "t = Transpose (x) r = Relu (t) p = MaxPool <kernel_shape = [2, 2]> (r) y = Concat <axis = 1> (p, r)"
    amax = {"x": 9.0, "t": 8.0, "r": 7.0, "p": 6.0, "y": 7.5}
    chosen = names[:count]
    forward = derived(body, {name: amax[name] for name in chosen})
    assert forward == derived(body, {name: amax[name] for name in reversed(chosen)})


@pytest.mark.slow
@pytest.mark.parametrize("bench", [recogniser, detector, minilm], ids=["recogniser", "detector", "minilm"])
def test_on_real_models_no_inferred_range_is_smaller_than_the_measured_one(bench: Any, tmp_path: Path) -> None:
    """run: min-max over every activation; whatever half is taken away, what is derived covers what was measured."""
    model = load_model(bench.model())
    for index, feeds in enumerate(bench.calibration(samples=8)):
        np.savez(tmp_path / f"{index}.npz", **feeds)
    source = open_data(str(tmp_path), model.inputs)
    statistics = collect_statistics(model, source, select_calibration_tensors(model, ("all",)))
    table = derive_table(statistics, range_method("minmax"))
    rng, nodes = random.Random(0), model.to_ir().graph
    found = 0
    for _ in range(20):
        kept = {name: amax for name, amax in table.amax.items() if rng.random() < 0.5}
        for tensor in infer_ranges(nodes, CalibrationTable(kept)):
            measured = table.amax.get(tensor.name, math.inf)
            found += 1
            if tensor.rule == "same values":
                assert tensor.amax == measured, tensor
            else:
                assert tensor.amax >= measured, tensor
    assert found > 50
