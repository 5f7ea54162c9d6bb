"""What the channels of a tensor hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.networks import weight
from tests.transforms.normalized import WIDTH, constant, layer_norm, network, node, tokens
from trt_ptq.calibration.measurements import channels as collecting
from trt_ptq.calibration.measurements.channels import sample_channels
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.types import Array

FACTORS = np.linspace(-3, 3, WIDTH)


def source(array: Array, batch_size: int = 4) -> ArraySource:
    return ArraySource("x.npz", {"x": array}, batch_size)


@pytest.fixture
def scaling(tmp_path: Path) -> Model:
    """h = x times the factor of its channel."""
    nodes = [node("Mul", "x factors", "h"), node("MatMul", "h w", "y")]
    return load_model(network(tmp_path / "m.onnx", nodes, [constant("factors", FACTORS), weight("w", WIDTH, 48)]))


def test_the_largest_magnitude_of_each_channel_is_exact(scaling: Model) -> None:
    data = tokens(12)
    channels = sample_channels(scaling, source(data), {"h": WIDTH})["h"]
    expected = np.abs(data * FACTORS.astype(np.float32)).max(axis=(0, 1))
    np.testing.assert_array_equal(channels.amax, expected)


@pytest.mark.parametrize("opset", [17, 18])
def test_several_tensors_are_sampled_at_once_in_any_opset(tmp_path: Path, opset: int) -> None:
    model = load_model(layer_norm(tmp_path / "m.onnx", opset))
    channels = sample_channels(model, source(tokens(4)), {"q": 48, "h": WIDTH})
    assert [(len(tensor.amax), tensor.rows.shape) for tensor in channels.values()] == [
        (48, (32, 48)),
        (WIDTH, (32, WIDTH)),
    ]


def test_rows_are_those_of_the_tensor(scaling: Model) -> None:
    data = tokens(2)
    rows = sample_channels(scaling, source(data), {"h": WIDTH})["h"].rows
    np.testing.assert_array_equal(rows, (data * FACTORS.astype(np.float32)).reshape(-1, WIDTH))


def test_rows_come_from_all_batches_and_are_limited(scaling: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_MAX_ROWS", 16)
    data = tokens(64)
    data[:32] = 1
    data[32:] = 2
    rows = sample_channels(scaling, source(data), {"h": WIDTH})["h"].rows
    assert list(rows[:, -1]) == [3] * (len(rows) // 2) + [6] * (len(rows) // 2)
    assert 8 <= len(rows) <= 16


def test_rows_of_all_tensors_fit_into_the_memory_given(scaling: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_MAX_BYTES", 4 * (WIDTH + 48) * 8)
    channels = sample_channels(scaling, source(tokens(64), 8), {"h": WIDTH, "y": 48})
    assert sum(tensor.rows.nbytes for tensor in channels.values()) <= 4 * (WIDTH + 48) * 8


@pytest.mark.parametrize(("first_large", "is_measured"), [(63, True), (64, False)])
def test_it_stops_after_64_samples(scaling: Model, first_large: int, is_measured: bool) -> None:
    data = tokens(70)
    data[first_large:] *= 1000
    assert (sample_channels(scaling, source(data), {"h": WIDTH})["h"].amax.max() > 1000) == is_measured


def test_an_empty_source_is_refused(scaling: Model) -> None:
    with pytest.raises(DataError, match="no batch"):
        sample_channels(scaling, source(tokens(0)), {"h": WIDTH})


def test_each_half_of_the_batches_has_the_range_of_the_other(scaling: Model) -> None:
    data = np.ones((8, 8, WIDTH), np.float32)
    data[:2] = 3  # the first of four batches
    data[6:] = 5  # the last one
    channels = sample_channels(scaling, source(data, 2), {"h": WIDTH})["h"]
    first, second = channels.halves
    factors = channels.amax / 5
    np.testing.assert_allclose([first.amax / factors, second.amax / factors], [[5] * WIDTH, [3] * WIDTH], rtol=1e-6)
    assert {float(value) for value in np.rint(np.abs(first.rows / factors)).flat} == {3, 1}
    assert {float(value) for value in np.rint(np.abs(second.rows / factors)).flat} == {1, 5}


@pytest.mark.parametrize(("samples", "batch_size"), [(4, 4), (9, 8)], ids=["one batch", "hardly more"])
def test_a_single_batch_has_its_own_range(scaling: Model, samples: int, batch_size: int) -> None:
    channels = sample_channels(scaling, source(tokens(samples), batch_size), {"h": WIDTH})["h"]
    (half,) = channels.halves
    np.testing.assert_array_equal(half.amax, channels.amax)
    np.testing.assert_array_equal(half.rows, channels.rows)
