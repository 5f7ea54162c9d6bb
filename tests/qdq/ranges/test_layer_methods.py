"""Range methods of single layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import trt_ptq
from tests.networks import weight, write
from trt_ptq.calibrators.methods import METHODS, Percentile, RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.qdq.ranges.layer_methods import activation_sources, check_layer_methods, with_layer_methods

MINMAX, CLIPPED = METHODS["minmax"], Percentile(90.0)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """q and k read x; the view of their sum is read by o."""
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"]),
        helper.make_node("MatMul", ["x", "wk"], ["k"]),
        helper.make_node("Add", ["q", "k"], ["s"]),
        helper.make_node("Constant", [], ["shape"], value_ints=[-1, 16]),
        helper.make_node("Reshape", ["s", "shape"], ["v"]),
        helper.make_node("MatMul", ["v", "wo"], ["y"]),
    ]
    weights = [weight("wq", 16, 32), weight("wk", 16, 32), weight("wo", 16, 16)]
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    return load_model(write(tmp_path / "m.onnx", nodes, weights, [rows], ["y"]))


@pytest.fixture
def statistics(model: Model) -> Statistics:
    rows = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    return trt_ptq.calibrate(model.path, {"x": rows})


def derived(model: Model, statistics: Statistics, methods: dict[str, RangeMethod]) -> CalibrationTable:
    sources = activation_sources(model.to_ir().graph, statistics)
    return with_layer_methods(derive_table(statistics, MINMAX), statistics, sources, methods)


def test_only_what_a_layer_reads_gets_its_method(model: Model, statistics: Statistics) -> None:
    plain, clipped = derive_table(statistics, MINMAX), derive_table(statistics, CLIPPED)
    table = derived(model, statistics, {"y": CLIPPED})
    changed = {name for name, value in table.amax.items() if value != plain.amax[name]}
    assert "x" not in changed
    assert {"s", "v"} & changed, "the layer reads a view of the sum"
    assert all(table.amax[name] == clipped.amax[name] < plain.amax[name] for name in changed)
    assert table.provenance is not None
    assert table.provenance.method == "minmax; percentile 90 for 1 tensor"


def test_layers_that_read_one_tensor_need_one_method(model: Model, statistics: Statistics) -> None:
    assert derived(model, statistics, {"q": CLIPPED, "k": CLIPPED}).amax["x"] < statistics.tensors["x"].amax
    with pytest.raises(UsageError, match=r"layer_methods: 'q' \(percentile 90\) and 'k' \(minmax\) .* tensor 'x'"):
        derived(model, statistics, {"q": CLIPPED, "k": MINMAX})


def test_a_method_without_an_effect_is_refused(model: Model) -> None:
    check_layer_methods(model.to_ir().graph, {}, groups=[("q", "s")])
    with pytest.raises(UsageError, match=r"layer_methods: 's': no activation that is read there is in INT8"):
        check_layer_methods(model.to_ir().graph, {}, groups=[("q",), ("s",)])


def test_different_methods_for_one_tensor_are_refused_before_a_calibration(model: Model) -> None:
    check_layer_methods(model.to_ir().graph, {"q": CLIPPED, "k": CLIPPED, "y": MINMAX})
    with pytest.raises(UsageError, match="read the same tensor 'x'"):
        check_layer_methods(model.to_ir().graph, {"y": MINMAX, "q": CLIPPED, "k": MINMAX})
