"""The samples that output errors are measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import weight, write
from trt_ptq.data.open import open_data
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError
from trt_ptq.evaluation.reference import Reference
from trt_ptq.onnx_io.load import load_model
from trt_ptq.tuning.estimating.few_samples import few_samples
from trt_ptq.tuning.settings import DEFAULT_SETTINGS
from trt_ptq.types import BatchSource


def selected(
    folder: Path, samples: int, batch: int, *, axis: int | str = "n", reshaped: bool = False, joined: bool = False
) -> list[list[int]]:
    """The numbers of the samples of a first look, and of the others, batch by batch."""
    shape = helper.make_node("Constant", [], ["shape"], value_ints=[batch, 1, 4])
    nodes = [shape, helper.make_node("Reshape", ["x", "shape"], ["r"])] if reshaped else []
    nodes.append(helper.make_node("MatMul", ["r" if reshaped else "x", "w"], ["m" if joined else "y"]))
    nodes += [helper.make_node("ReduceMean", ["m"], ["y"], axes=[0])] if joined else []
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [axis, 4])
    model = load_model(write(folder / "m.onnx", nodes, [weight("w", 4, 4)], [rows], ["y"]))
    data = np.arange(samples, dtype=np.float32)[:, None].repeat(4, 1)
    parts = few_samples(model, Reference(model.path), ArraySource("x.npz", {"x": data}, batch), DEFAULT_SETTINGS)
    return [_numbers(parts.first), _numbers(parts.rest)]


def _numbers(source: BatchSource | None) -> list[int]:
    return [int(number) for batch in source or () for number in batch.feeds["x"][:, 0]]


def test_a_first_look_takes_two_samples_of_each_of_eight_batches(tmp_path: Path) -> None:
    first, rest = selected(tmp_path, 320, 20)
    assert first == [start + number for start in range(0, 320, 40) for number in (0, 1)]
    assert rest == [start + number for start in range(0, 320, 40) for number in range(2, 8)]


def test_a_model_for_one_batch_size_gets_whole_batches(tmp_path: Path) -> None:
    first, rest = selected(tmp_path, 320, 20, axis=20)
    assert first == [*range(20), *range(160, 180)]
    assert rest == [*range(80, 100), *range(240, 260)]


@pytest.mark.parametrize("options", [{"reshaped": True}, {"joined": True}], ids=["fails", "joined"])
def test_a_model_that_takes_no_parts_of_batches_gets_eight_whole_ones(tmp_path: Path, options: dict[str, bool]) -> None:
    first, rest = selected(tmp_path, 320, 20, **options)
    assert first == [*range(20), *range(160, 180)]
    assert rest[::20] == [40, 80, 120, 200, 240, 280]


@pytest.mark.parametrize(("samples", "at_first"), [(1, 1), (7, 7), (16, 16), (40, 14), (64, 16), (640, 16)])
def test_batches_of_one_sample_add_up_to_as_many_samples(tmp_path: Path, samples: int, at_first: int) -> None:
    first, rest = selected(tmp_path, samples, 1)
    assert sorted([*first, *rest]) == list(range(0, samples, max(samples // 64, 1)))
    assert len(first) == at_first


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 8, 20])
def test_batches_of_any_size_add_up_to_about_as_many_samples(tmp_path: Path, batch: int) -> None:
    first, rest = selected(tmp_path, 100 * batch, batch)
    assert 16 <= len(first) <= 20
    assert 64 <= len([*first, *rest]) <= 66
    assert not {*first} & {*rest}


def test_eight_texts_are_enough_of_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_ptq.tuning.estimating.few_samples.is_decoder", lambda _model: True)
    assert [len(part) for part in selected(tmp_path, 64, 1)] == [2, 6]


def test_a_first_axis_of_time_is_no_axis_of_samples(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GRU", ["x", "W", "R"], ["o"], hidden_size=4),
        helper.make_node("Squeeze", ["o", "axes"], ["y"]),
    ]
    weights = [weight("W", 1, 12, 4), weight("R", 1, 12, 4), numpy_helper.from_array(np.array([1]), "axes")]
    frames = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 4])
    path = write(tmp_path / "m.onnx", nodes, weights, [frames], ["y"])
    assert takes_whole_batches(path, (50, 1, 4))


def test_samples_that_attend_to_each_other_stay_together(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["a"], axis=-1),
        helper.make_node("MatMul", ["a", "x"], ["m"]),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    tokens = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", 4])
    assert takes_whole_batches(write(tmp_path / "m.onnx", nodes, [weight("w", 4, 4)], [tokens], ["y"]), (50, 4))


def takes_whole_batches(path: Path, shape: tuple[int, ...]) -> bool:
    model = load_model(path)
    batches = [{"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)} for seed in range(8)]
    few = few_samples(model, Reference(path), open_data(batches, model.inputs), DEFAULT_SETTINGS)
    assert few.rest is not None
    shapes = [[batch.feeds["x"].shape for batch in part] for part in (few.first, few.rest)]
    return shapes == [[shape] * 2, [shape] * 6]


def test_data_without_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no batches"):
        selected(tmp_path, 0, 1)


@pytest.mark.parametrize(("batch", "count"), [(4, 32), (8, 64), (16, 64), (1000, 64)])
def test_large_batches_need_no_more_samples(tmp_path: Path, batch: int, count: int) -> None:
    assert sum(map(len, selected(tmp_path, 8 * batch, batch))) == count


def test_a_last_batch_without_further_samples_counts_at_first_only(tmp_path: Path) -> None:
    first, rest = selected(tmp_path, 42, 20)
    assert first == [0, 1, 2, 3, 4, 5, 20, 21, 22, 23, 24, 25, 40, 41]
    assert rest == [*range(6, 20), *range(26, 40)]
