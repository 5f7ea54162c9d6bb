"""How far INT8 shifts the mean of each output channel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.measurements import bias_error
from trt_ptq.calibration.measurements.bias_error import measure_bias_error
from trt_ptq.calibration.tensors import model_with_outputs, select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import Array

node = helper.make_node


MIN_BIAS_FRACTION = bias_error.MIN_BIAS_FRACTION


@pytest.fixture(autouse=True)
def every_mean_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that all can be compared."""
    monkeypatch.setattr(bias_error, "MIN_BIAS_FRACTION", 0.0)


def source(array: Array, batch_size: int = 4) -> ArraySource:
    return ArraySource("x.npz", {"x": array}, batch_size)


def minmax(model: Model, array: Array) -> CalibrationTable:
    return derive_table(collect_statistics(model, source(array), select_calibration_tensors(model)), METHODS["minmax"])


def alone_in_int8(
    model: Model, table: CalibrationTable, layer: str, array: Array, folder: Path, axis: int = 1
) -> Array:
    """The mean of (float - INT8) for each channel (`axis`) of `layer`, where only this one is INT8."""
    plan = insert_qdq(model, table).plan
    others = [node.output for node in plan.nodes if node.output != layer]
    save_model(insert_qdq(model, table, others).model, folder / "alone.onnx")
    proto = onnx.load(folder / "alone.onnx")
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_empty_tensor_value_info(layer))
    quantized, exact = (
        ort.InferenceSession(model_proto.SerializeToString()).run([layer], {"x": array})[0].astype(np.float64)
        for model_proto in (proto, ir.to_proto(model_with_outputs(model, [layer])))
    )
    mean: Array = (exact - quantized).mean(axis=tuple(dim for dim in range(exact.ndim) if dim != axis))
    return mean


def test_the_bias_is_the_mean_error_if_only_this_layer_is_int8(cnn: Model, tmp_path: Path) -> None:
    data = images(30)  # of which the last batch is short
    table = minmax(cnn, data)
    measured = measure_bias_error(cnn, table, source(data))
    assert {name: shift.shape for name, shift in measured.items()} == {"c1": (CHANNELS,), "c2": (CHANNELS,), "y": (32,)}
    for name, shift in measured.items():
        assert shift.dtype == np.float32
        assert shift == pytest.approx(alone_in_int8(cnn, table, name, data, tmp_path), abs=2e-6), name


def depthwise(path: Path) -> Path:
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": CHANNELS}
    nodes = [node("Conv", ["x", "w"], ["y"], **pads)]
    return write(path, nodes, [weight("w", CHANNELS, 1, 3, 3)], [image_input()], ["y"])


def transposed(path: Path) -> Path:
    nodes = [node("ConvTranspose", ["x", "w", "b"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]
    return write(path, nodes, [weight("w", CHANNELS, 24, 2, 2), weight("b", 24)], [image_input()], ["y"])


def scaled_gemm(path: Path) -> Path:
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("Gemm", ["f", "w", "c"], ["y"], alpha=0.5, beta=2.0),
    ]
    return write(path, nodes, [weight("w", CHANNELS * 64, 24), weight("c", 24)], [image_input()], ["y"])


def matmul_of_many_axes(path: Path) -> Path:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node("Transpose", ["w"], ["v"], perm=[1, 0]),
        node("MatMul", ["t", "v"], ["y"]),
    ]
    return write(path, nodes, [weight("w", 24, CHANNELS)], [image_input()], ["y"])


@pytest.mark.parametrize(
    ("network", "axis"), [(depthwise, 1), (transposed, 1), (scaled_gemm, 1), (matmul_of_many_axes, 3)]
)
def test_every_kind_of_layer_is_measured(network: Callable[[Path], Path], axis: int, tmp_path: Path) -> None:
    model = load_model(network(tmp_path / "model.onnx"))
    data = images(16)
    table = minmax(model, data)
    expected = alone_in_int8(model, table, "y", data, tmp_path, axis)
    assert np.abs(expected).max() > 1e-4
    assert measure_bias_error(model, table, source(data))["y"] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("positions", "counts"), [(1, False), (16, True)])
def test_a_mean_counts_only_if_it_is_a_large_fraction_of_the_error(
    tmp_path: Path, positions: int, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 positions some are clipped. One alone would spread its error over all others, which have none."""
    monkeypatch.setattr(bias_error, "MIN_BIAS_FRACTION", MIN_BIAS_FRACTION)
    model = load_model(matmul_of_many_axes(tmp_path / "model.onnx"))
    data = np.ones((1, CHANNELS, 8, 8), np.float32)
    table = minmax(model, data)
    data.reshape(CHANNELS, 64)[:, :positions] = 100
    assert measure_bias_error(model, table, source(data))["y"].all() == counts
    assert measure_bias_error(model, table, source(data))["y"].any() == counts


def test_batches_are_weighted_by_their_number_of_values(cnn: Model) -> None:
    data = images(20)
    table = minmax(cnn, data)
    apart, together = (measure_bias_error(cnn, table, source(data, size)) for size in (16, 20))
    for name, shift in apart.items():
        assert shift == pytest.approx(together[name], abs=1e-6)


def test_it_stops_after_enough_samples(cnn: Model) -> None:
    data = images(40)
    table = minmax(cnn, data)
    few = measure_bias_error(cnn, table, source(data[:20]))
    data[20:] *= 10
    enough, more = (measure_bias_error(cnn, table, source(data), samples=samples) for samples in (20, 21))
    assert np.array_equal(enough["c1"], few["c1"])
    assert not np.array_equal(more["c1"], few["c1"])


def test_the_bias_does_not_depend_on_the_number_of_passes(cnn: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    table = minmax(cnn, images(16))
    once, again = (measure_bias_error(cnn, table, source(images(16))) for _ in range(2))
    monkeypatch.setattr(bias_error, "_MAX_LAYERS", 1)
    in_passes = measure_bias_error(cnn, table, source(images(16)))
    monkeypatch.setattr(bias_error, "_MAX_WEIGHTS", 1)
    for other in (again, in_passes, measure_bias_error(cnn, table, source(images(16)))):
        assert {name: shift.tobytes() for name, shift in other.items()} == {
            name: shift.tobytes() for name, shift in once.items()
        }


def test_nan_is_refused_by_the_name_of_batch_and_layer(cnn: Model) -> None:
    table = minmax(cnn, images(8))
    data = images(8)
    data[5, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"x\.npz, samples 4 to 7: the mean of layer 'c1' has NaN"):
        measure_bias_error(cnn, table, source(data))


def test_no_batches_are_refused(cnn: Model) -> None:
    with pytest.raises(DataError, match="the data has no batches"):
        measure_bias_error(cnn, minmax(cnn, images(8)), source(images(0)))
