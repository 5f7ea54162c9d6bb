"""The largest magnitude of every float32 tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import images
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.measurements import magnitudes
from trt_ptq.calibration.measurements.magnitudes import combine_amax, measure_amax
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.data.sources import ArraySource
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.types import Array


def source(array: Array, batch_size: int = 4) -> ArraySource:
    return ArraySource("x.npz", {"x": array}, batch_size)


def model(tmp_path: Path, *nodes: onnx.NodeProto, output: str = "y") -> Model:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "m"]) for name in ("x", output)]
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


def test_magnitudes_equal_those_of_statistics_over_the_same_data(cnn: Model) -> None:
    data = source(images(16))
    tensors = collect_statistics(cnn, data, select_calibration_tensors(cnn, ("all",))).tensors
    measured = measure_amax(cnn, data)
    assert measured.keys() == tensors.keys() == {"x", "c1", "r1", "c2", "a", "r2", "p", "f", "y"}
    assert measured == pytest.approx({name: tensor.amax for name, tensor in tensors.items()}, rel=1e-5)


def test_it_stops_after_enough_samples(cnn: Model) -> None:
    data = images(40)
    data[20:] *= 1000
    assert measure_amax(cnn, source(data), samples=20)["x"] < 2
    assert measure_amax(cnn, source(data), samples=21)["x"] > 500


def test_infinities_are_ignored_and_nan_is_reported(tmp_path: Path) -> None:
    measured = measure_amax(
        model(tmp_path, helper.make_node("Sqrt", ["x"], ["y"])), source(np.array([[4, np.inf]], "f"))
    )
    assert measured == {"x": 4, "y": 2}
    measured = measure_amax(model(tmp_path, helper.make_node("Sqrt", ["x"], ["y"])), source(np.array([[-1.0]], "f")))
    assert np.isnan(measured["y"])


@pytest.mark.parametrize("place", [0, 40_000, 99_999])
def test_a_nan_is_reported_wherever_it_is(tmp_path: Path, place: int) -> None:
    values = np.ones((1, 100_000), np.float32)
    values[0, place] = -1
    values[0, 7] = np.inf
    measured = measure_amax(model(tmp_path, helper.make_node("Sqrt", ["x"], ["y"])), source(values))
    assert measured["x"] == 1
    assert np.isnan(measured["y"])


def test_tensors_that_the_model_cannot_reduce_are_measured_in_passes(
    cnn: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced = measure_amax(cnn, source(images(16)))
    monkeypatch.setattr(magnitudes, "reduce_amax", lambda _model, _source, tensors, _: dict.fromkeys(tensors, np.nan))
    one_pass = measure_amax(cnn, source(images(16)))
    monkeypatch.setattr(magnitudes, "_PASS_BYTES", 1)
    assert reduced == one_pass == measure_amax(cnn, source(images(16)))


def test_an_empty_tensor_has_0(tmp_path: Path) -> None:
    empty = model(tmp_path, helper.make_node("Relu", ["x"], ["y"]))
    assert measure_amax(empty, source(np.zeros((2, 0), np.float32))) == {"x": 0, "y": 0}


def test_statistics_over_all_data_raise_what_few_samples_gave(cnn: Model) -> None:
    data = images(40)
    data[20:] *= 1000
    statistics = collect_statistics(cnn, source(data), select_calibration_tensors(cnn))
    measured = measure_amax(cnn, source(data))
    known = combine_amax(measured, statistics)
    assert known["x"] == statistics.tensors["x"].amax > 500
    assert known["c1"] == measured["c1"]


@pytest.mark.parametrize("opset", [17, 18])
def test_a_mask_of_minus_infinity_hides_no_other_value(tmp_path: Path, opset: int) -> None:
    nodes = [helper.make_node("Add", ["x", "mask"], ["masked"]), helper.make_node("Softmax", ["masked"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    mask = numpy_helper.from_array(np.array([0, -np.inf], np.float32), "mask")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [mask])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), tmp_path / "m.onnx"
    )
    measured = measure_amax(load_model(tmp_path / "m.onnx"), source(np.array([[-9, 2], [-3, 4]], np.float32)))
    assert measured == {"x": 9, "masked": 9, "masked (row maxima)": 9, "y": 1}


def test_an_overflow_inside_the_network_is_kept_out_of_float16(tmp_path: Path) -> None:
    """x cubed, as in the approximation of GELU by tanh: 90 ** 3 is 729000."""
    cube = helper.make_node("Mul", ["s", "x"], ["c"])
    network = model(tmp_path, helper.make_node("Mul", ["x", "x"], ["s"]), cube, helper.make_node("Tanh", ["c"], ["y"]))
    fp32_nodes = convert_to_float16(
        network.to_ir(), measure_amax(network, source(np.full((1, 1), 90, np.float32)))
    ).fp32_nodes
    assert [(node.output, node.reason) for node in fp32_nodes] == [
        ("c", "'c' reaches 7.29e+05"),
        ("y", "'c' reaches 7.29e+05"),
    ]


def test_the_maxima_of_the_rows_that_a_softmax_reads_are_measured(tmp_path: Path) -> None:
    network = model(tmp_path, helper.make_node("Softmax", ["x"], ["y"], axis=1))
    measured = measure_amax(network, source(np.array([[-9, 2], [-9, -3]], np.float32)))
    assert measured["x"] == 9
    assert measured["x (row maxima)"] == 3


def test_rows_along_several_axes_have_no_maxima(tmp_path: Path) -> None:
    rows, columns = (helper.make_node("Softmax", ["x"], [name], axis=axis) for name, axis in (("r", 1), ("c", 0)))
    network = model(tmp_path, rows, columns, helper.make_node("Add", ["r", "c"], ["y"]))
    measured = measure_amax(network, source(np.array([[-9, 2], [-9, -3]], np.float32)))
    assert measured["x"] == 9
    assert "x (row maxima)" not in measured
