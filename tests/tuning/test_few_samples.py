"""The samples that output errors are measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.networks import weight, write
from trt_ptq.data.sources import ArraySource
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


@pytest.mark.parametrize("options", [{"axis": 20}, {"reshaped": True}, {"joined": True}])
def test_a_model_for_one_batch_size_gets_whole_batches(tmp_path: Path, options: dict[str, int]) -> None:
    first, rest = selected(tmp_path, 320, 20, **options)  # type: ignore[arg-type]
    assert first == [*range(20), *range(160, 180)]
    assert rest == [*range(80, 100), *range(240, 260)]


@pytest.mark.parametrize("batches", [1, 2, 3, 7, 8, 40])
def test_small_batches_are_divided_between_both_looks(tmp_path: Path, batches: int) -> None:
    first, rest = selected(tmp_path, batches, 1)
    step = max(batches // 8, 1)
    assert sorted([*first, *rest]) == list(range(0, batches, step))[:8]
    assert len(first) == min(batches, 2)


@pytest.mark.parametrize(("batch", "count"), [(4, 32), (8, 64), (16, 64), (1000, 64)])
def test_large_batches_need_no_more_samples(tmp_path: Path, batch: int, count: int) -> None:
    assert sum(map(len, selected(tmp_path, 8 * batch, batch))) == count


def test_a_last_batch_without_further_samples_counts_at_first_only(tmp_path: Path) -> None:
    first, rest = selected(tmp_path, 42, 20)
    assert first == [0, 1, 2, 3, 4, 5, 20, 21, 22, 23, 24, 25, 40, 41]
    assert rest == [*range(6, 20), *range(26, 40)]
