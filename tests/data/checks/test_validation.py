"""A batch that does not fit the model is refused, and the error says what would fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.sources import InMemorySource
from trt_ptq.errors import DataError
from trt_ptq.types import Batch, TensorSpec

IDS = TensorSpec("ids", np.dtype(np.int64), ("batch", "length"))
MASK = TensorSpec("mask", np.dtype(np.float32), ("batch", "length"))
FIXED = TensorSpec("x", np.dtype(np.float32), (2, 3))


def source(*feeds: dict[str, Any]) -> InMemorySource:
    return InMemorySource([Batch(item, f"file{index}.npz") for index, item in enumerate(feeds)])


def check(*batches: dict[str, Any], inputs: tuple[TensorSpec, ...], allow_nonfinite: bool = False) -> list[Batch]:
    return list(ValidatedSource(source(*batches), inputs, allow_nonfinite))


def ids(*shape: int) -> Any:
    return np.ones(shape, np.int64)


def mask(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(("dtype", "name"), [(bool, "bool"), (object, "object"), (np.float32, "numpy.float32")])
def test_the_data_type_is_named_as_python_writes_it(dtype: Any, name: str) -> None:
    with pytest.raises(DataError, match=rf"convert it with \.astype\({name}\)"):
        check({"x": np.ones((2, 3), np.int16)}, inputs=(TensorSpec("x", np.dtype(dtype), (2, 3)),))


def test_batches_that_fit_pass_unchanged() -> None:
    feeds = [{"ids": ids(2, 5), "mask": mask(2, 5)}, {"ids": ids(1, 7), "mask": mask(1, 7)}]
    assert [batch.feeds for batch in check(*feeds, inputs=(IDS, MASK))] == feeds
    assert ValidatedSource(source(*feeds), (IDS, MASK)).total == 2


def test_no_batch_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="the data has no batches"):
        check(inputs=(FIXED,))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"ids": ids(2, 5)}, r"\(mask missing\)"),
        ({"ids": ids(2, 5), "mask": mask(2, 5), "type": ids(2, 5)}, r"\('type' unknown\)"),
        ({"input_ids": ids(2, 5), "mask": mask(2, 5)}, r"\('input_ids' unknown; ids missing\)"),
        ({"": ids(2, 5), "mask": mask(2, 5)}, r"\('' unknown; ids missing\)"),
    ],
)
def test_wrong_names_are_refused_with_the_right_ones(feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check(feeds, inputs=(IDS, MASK))
    assert str(caught.value).startswith("file0.npz: wrong input names ")
    assert str(caught.value).endswith("the model takes ids: int64 [batch, length], mask: float32 [batch, length]")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, object, np.dtype(">f4")])
def test_a_wrong_dtype_is_refused_with_the_conversion(dtype: Any) -> None:
    with pytest.raises(DataError, match=r"input 'x' is .*, the model takes float32: .*\.astype\(numpy\.float32\)"):
        check({"x": np.ones((2, 3), dtype)}, inputs=(FIXED,))


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (6,), ()])
def test_a_wrong_shape_is_refused_with_the_right_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"file0\.npz: input 'x' has shape .*, the model takes x: float32 \[2, 3\]$"):
        check({"x": mask(*shape)}, inputs=(FIXED,))


def test_a_wrong_number_of_samples_for_a_fixed_batch_is_refused_with_the_parameter() -> None:
    with pytest.raises(DataError, match=r"shape \[8, 3\], the model takes x: float32 \[2, 3\]: .*`batch_size=2`"):
        check({"x": mask(8, 3)}, inputs=(FIXED,))


def test_samples_that_fill_no_fixed_batch_are_to_be_dropped() -> None:
    with pytest.raises(DataError, match=r"float32 \[2, 3\]: give whole batches: drop the last 1 sample, or"):
        check({"x": mask(1, 3)}, inputs=(FIXED,))


def test_an_empty_key_value_cache_passes() -> None:
    past = TensorSpec("past", np.dtype(np.float32), (1, 3, "length", 64))
    x = TensorSpec("x", np.dtype(np.float32), (1, 8))
    assert len(check({"x": mask(1, 8), "past": mask(1, 3, 0, 64)}, inputs=(x, past))) == 1


def test_an_empty_cache_is_not_a_ragged_batch_if_its_first_axis_is_another_one() -> None:
    past = TensorSpec("past", np.dtype(np.float32), ("length", 64))
    assert len(check({"ids": ids(2, 5), "past": mask(0, 64)}, inputs=(IDS, past))) == 1


def test_only_a_dynamic_dimension_may_be_empty() -> None:
    with pytest.raises(DataError, match=r"input 'x' has shape \[2, 0\], the model takes"):
        check({"x": mask(2, 0)}, inputs=(FIXED,))


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(DataError, match=r"input 'ids' is empty: shape \[0, 5\]"):
        check({"ids": ids(0, 5), "mask": mask(0, 5)}, inputs=(IDS, MASK))


def test_a_ragged_batch_is_refused_with_both_sizes() -> None:
    with pytest.raises(DataError, match=r"file1\.npz: ragged batch: ids has 3, mask has 2 samples"):
        check({"ids": ids(2, 5), "mask": mask(2, 5)}, {"ids": ids(3, 5), "mask": mask(2, 5)}, inputs=(IDS, MASK))


def test_first_axes_of_different_names_may_differ() -> None:
    nodes = TensorSpec("nodes", np.dtype(np.float32), ("node", 3))
    edges = TensorSpec("edges", np.dtype(np.int64), ("edge", 2))
    assert len(check({"nodes": mask(5, 3), "edges": ids(9, 2)}, inputs=(nodes, edges))) == 1


def test_first_axes_without_names_must_agree() -> None:
    first, second = (TensorSpec(name, np.dtype(np.float32), ("?", 3)) for name in "ab")
    with pytest.raises(DataError, match="ragged batch: a has 5, b has 4"):
        check({"a": mask(5, 3), "b": mask(4, 3)}, inputs=(first, second))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nan_or_infinity_is_refused_with_file_and_index(bad: float) -> None:
    broken = mask(2, 3)
    broken[1, 2] = bad
    with pytest.raises(DataError, match=rf"^file1\.npz: input 'x' has {bad} at \[1, 2\]: .*`nonfinite=skip`"):
        check({"x": mask(2, 3)}, {"x": broken}, inputs=(FIXED,))


def test_a_nan_passes_if_it_is_allowed() -> None:
    assert len(check({"x": mask(2, 3) * np.nan}, inputs=(FIXED,), allow_nonfinite=True)) == 1


def test_a_batch_that_is_read_by_its_index_is_checked() -> None:
    validated = ValidatedSource(source({"x": mask(2, 3)}, {"x": mask(2, 4)}), (FIXED,))
    assert validated.batch(0).origin == "file0.npz"
    with pytest.raises(DataError, match=r"file1\.npz: input 'x' has shape"):
        validated.batch(1)
