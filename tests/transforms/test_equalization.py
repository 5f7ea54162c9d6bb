"""Ranges of channels evened out between convolutions: what the model computes stays (run by ONNX Runtime)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.networks import CHANNELS, image_input, images, weight, write
from tests.transforms.normalized import changed_tensors, constant, node, outputs, saved
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import MinMax
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.data.sources import ArraySource
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.transforms.equalization import equalize
from trt_ptq.transforms.result import TransformResult
from trt_ptq.types import Array

PADS: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def uneven(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """Weights whose output channels differ by up to about 1000 times, as DFQ shows for MobileNet."""
    values = numpy_helper.to_array(weight(name, *shape, seed=seed))
    spread = np.exp(np.random.default_rng([seed, *name.encode()]).normal(0, 1.5, shape[0]))
    return constant(name, values * spread.reshape(-1, *[1] * (len(shape) - 1)))


def network(path: Path, *nodes: onnx.NodeProto, seed: int = 0, extra: list[onnx.TensorProto] | None = None) -> Path:
    """x [n, 16, 8, 8] -> y; weights w1, w2, w3 of convolutions 16 -> 16, d of a depthwise one, biases b1 and b2."""
    weights = [
        *(uneven(name, CHANNELS, CHANNELS, 3, 3, seed=seed) for name in ("w1", "w2", "w3")),
        uneven("d", CHANNELS, 1, 3, 3, seed=seed),
        uneven("g", CHANNELS, 4, 3, 3, seed=seed),
        *(weight(name, CHANNELS, seed=seed) for name in ("b1", "b2")),
        *(extra or []),
    ]
    read = {name for one in nodes for name in one.input}
    return write(path, list(nodes), [one for one in weights if one.name in read], [image_input()], ["y"])


def chain(path: Path, seed: int = 0) -> Path:
    """Convolution, depthwise, convolution, as in MobileNet: x -> c1 -> r1 -> c2 -> r2 -> y."""
    return network(
        path,
        node("Conv", "x w1 b1", "c1", **PADS),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 d b2", "c2", group=CHANNELS, **PADS),
        node("Relu", "c2", "r2"),
        node("Conv", "r2 w3", "y", **PADS),
        seed=seed,
    )


def equalized(path: Path) -> tuple[TransformResult, Path]:
    transformed = equalize(load_model(path))
    return transformed, saved(transformed, path.with_name("equalized.onnx"))


def assert_same_function(before: Path, after: Path) -> None:
    x = images(4)
    (old,), (new,) = outputs(before, x=x), outputs(after, x=x)
    np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5 * np.abs(old).max())


def weights_of(path: Path) -> dict[str, Array]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def tensors(transformed: TransformResult) -> list[str]:
    return [one.tensor for one in transformed.applied]


def test_ranges_of_outputs_and_inputs_become_equal(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx")
    transformed, after = equalized(path)
    assert tensors(transformed) == ["r1", "r2"]
    weights = weights_of(after)
    first, depthwise, last = (np.abs(weights[name]) for name in ("w1", "d", "w3"))
    np.testing.assert_allclose(first.max(axis=(1, 2, 3)), depthwise.max(axis=(1, 2, 3)), rtol=0.01)
    np.testing.assert_allclose(depthwise.max(axis=(1, 2, 3)), last.max(axis=(0, 2, 3)), rtol=0.01)
    assert_same_function(path, after)


def test_scales_are_the_square_root_of_the_ratio_of_ranges(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", node("Conv", "x w1", "c", **PADS), node("Conv", "c w2", "y", **PADS))
    before, after = weights_of(path), weights_of(equalized(path)[1])
    scales = np.sqrt(np.abs(before["w1"]).max(axis=(1, 2, 3)) / np.abs(before["w2"]).max(axis=(0, 2, 3)))
    np.testing.assert_allclose(after["w1"], before["w1"] / scales[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(after["w2"], before["w2"] * scales[:, None, None], rtol=1e-5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_any_weights_leave_the_function_as_it_was(tmp_path: Path, seed: int) -> None:
    path = chain(tmp_path / "m.onnx", seed)
    assert_same_function(path, equalized(path)[1])


@pytest.mark.parametrize(
    "between",
    [
        [],
        [node("LeakyRelu", "c", "a", alpha=0.1)],
        [node("PRelu", "c slope", "a")],
        [node("Relu", "c", "r"), node("MaxPool", "r", "a", kernel_shape=[2, 2])],
        [node("BatchNormalization", "c b1 b2 mean variance", "n"), node("Relu", "n", "a")],
    ],
    ids=["nothing", "leaky", "prelu", "relu and pool", "batch normalization"],
)
@pytest.mark.parametrize("group", [1, 4, CHANNELS])
def test_what_scales_with_its_input_may_stand_between(
    tmp_path: Path, between: list[onnx.NodeProto], group: int
) -> None:
    kernel = {1: "w2", 4: "g", CHANNELS: "d"}[group]
    read = between[-1].output[0] if between else "c"
    nodes = [
        node("Conv", "x w1 b1", "c", **PADS),
        *between,
        node("Conv", f"{read} {kernel}", "y", group=group, **PADS),
    ]
    extra = [
        constant("slope", np.linspace(-0.5, 0.5, CHANNELS).reshape(CHANNELS, 1, 1)),
        weight("mean", CHANNELS),
        constant("variance", np.linspace(0.1, 2, CHANNELS)),
    ]
    named = {name for one in nodes for name in one.input}
    path = network(tmp_path / "m.onnx", *nodes, extra=[one for one in extra if one.name in named])
    transformed, after = equalized(path)
    assert tensors(transformed) == [read]
    assert_same_function(path, after)


def test_nodes_and_tensors_keep_their_names(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx")
    before, after = onnx.load(path).graph, onnx.load(equalized(path)[1]).graph
    assert [list(one.input) for one in after.node] == [list(one.input) for one in before.node]
    assert [list(one.output) for one in after.node] == [list(one.output) for one in before.node]
    assert {one.name for one in after.initializer} == {one.name for one in before.initializer}


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (node("Clip", "c zero six", "a"), "Clip follows, which does not scale with its input"),
        (node("HardSwish", "c", "a"), "HardSwish follows, which does not scale with its input"),
    ],
    ids=["ReLU6", "HardSwish"],
)
def test_what_does_not_scale_with_its_input_is_named(tmp_path: Path, between: onnx.NodeProto, reason: str) -> None:
    extra = [constant("zero", 0), constant("six", 6)] if between.op_type == "Clip" else []
    path = network(
        tmp_path / "m.onnx",
        node("Conv", "x w1", "c", **PADS),
        between,
        node("Conv", "a w2", "y", **PADS),
        extra=extra,
    )
    transformed, after = equalized(path)
    assert not transformed.applied
    assert [str(one) for one in transformed.skipped] == [f"'c': {reason}"]
    assert weights_of(after).keys() == weights_of(path).keys()
    np.testing.assert_array_equal(weights_of(after)["w1"], weights_of(path)["w1"])


def test_a_tensor_that_something_else_reads_too_is_named(cnn_path: Path) -> None:
    """The shortcut of a residual block."""
    transformed, _ = equalized(cnn_path)
    assert not transformed.applied
    assert [str(one) for one in transformed.skipped] == ["'c1': 'r1' has other readers, or is an output of the model"]


def test_a_tensor_that_the_model_puts_out_is_named(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", node("Conv", "x w1", "c", **PADS), node("Conv", "c w2", "y", **PADS))
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info("c", 1, ["n", CHANNELS, 8, 8]))
    onnx.save(proto, path)
    assert [str(one) for one in equalize(load_model(path)).skipped] == [
        "'c': 'c' has other readers, or is an output of the model"
    ]


def test_shared_weights_are_named(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", node("Conv", "x w1", "c", **PADS), node("Conv", "c w1", "y", **PADS))
    assert [str(one) for one in equalize(load_model(path)).skipped] == ["'c': the weight 'w1' is shared"]


def test_a_bias_that_others_read_too_is_copied(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", node("Conv", "x w1 b1", "c", **PADS), node("Conv", "c w2 b1", "y", **PADS))
    transformed, after = equalized(path)
    assert tensors(transformed) == ["c"]
    assert_same_function(path, after)


def test_channels_of_zeros_are_left(tmp_path: Path) -> None:
    """A pruned channel puts out its bias; scaled by its range, that would be infinite."""
    path = network(tmp_path / "m.onnx", node("Conv", "x w1 b1", "c", **PADS), node("Conv", "c w2", "y", **PADS))
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w1":
            values[0], values[1] = 0, 1e-30
        elif tensor.name == "w2":
            values[:, 2] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)
    _, after = equalized(path)
    np.testing.assert_array_equal(weights_of(after)["b1"][:3], weights_of(path)["b1"][:3])
    assert_same_function(path, after)


def test_even_channels_are_left(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx")
    _, once = equalized(path)
    once = once.rename(tmp_path / "once.onnx")
    transformed, twice = equalized(once)
    assert not transformed.applied
    assert [one.note for one in transformed.skipped] == ["its channels have even ranges already"] * 2
    for name, values in weights_of(once).items():
        np.testing.assert_array_equal(weights_of(twice)[name], values)


def int8_error(path: Path) -> float:
    """Error of the INT8 model against the float one, on data that nothing was measured on."""
    model = load_model(path)
    data = ArraySource("x.npz", {"x": images(32, seed=1)}, 8)
    table = derive_table(collect_statistics(model, data, select_calibration_tensors(model)), MinMax())
    quantized = path.with_name("int8.onnx")
    save_model(insert_qdq(model, table).model, quantized)
    x = images(16)
    (exact,), (found,) = outputs(path, x=x), outputs(quantized, x=x)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_channels_that_were_driven_apart_cost_as_little_in_int8_as_before(tmp_path: Path) -> None:
    """A channel large in one layer and small in the next, as training leaves them in MobileNet."""
    path = chain(tmp_path / "m.onnx")
    _, even = equalized(path)
    at_first = int8_error(even)
    proto = onnx.load(even)
    apart = np.exp(np.random.default_rng(0).normal(0, 2, CHANNELS)).astype(np.float32).reshape(-1, 1, 1, 1)
    factors = {"w1": apart, "b1": apart.reshape(-1), "d": 1 / apart}
    for tensor in proto.graph.initializer:
        if tensor.name in factors:
            scaled = numpy_helper.to_array(tensor) * factors[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    onnx.save(proto, path)
    driven_apart = int8_error(path)
    repaired = int8_error(equalized(path)[1])
    assert repaired < driven_apart / 3
    assert repaired == pytest.approx(at_first, rel=0.05)


def test_external_weights_are_scaled_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = network(
        tmp_path / "inside" / "m.onnx",
        node("Conv", "x wide", "c", kernel_shape=[3, 3]),
        node("Relu", "c", "r"),
        node("Conv", "r narrow", "y", kernel_shape=[3, 3]),
        extra=[uneven("wide", 512, CHANNELS, 3, 3), uneven("narrow", CHANNELS, 512, 3, 3)],
    )
    outside = tmp_path / "m.onnx"
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location="m.data", size_threshold=1024)
    transformed, after = equalized(outside)
    assert tensors(transformed) == ["r"]
    assert_same_function(path, after)


def test_the_tensors_that_change_are_named(tmp_path: Path) -> None:
    paths = chain(tmp_path / "m.onnx"), network(tmp_path / "n.onnx", *_pooled())
    for path in paths:
        transformed, after = equalized(path)
        assert transformed.changed == changed_tensors(path, after, x=images(4)) == {"c1", "r1", "c2", "r2"}


def _pooled() -> list[onnx.NodeProto]:
    return [
        node("Conv", "x w1", "c1", **PADS),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", **PADS),
        node("MaxPool", "c2", "r2", kernel_shape=[2, 2]),
        node("Conv", "r2 w3", "s", **PADS),
        node("Sigmoid", "s", "y"),
    ]
