"""Items of users' data sets become arrays by input name; errors name the item."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from tests.data.opened import X, Y, rows
from trt_ptq.data.feeds import FeedsReader, as_array, stack
from trt_ptq.errors import DataError
from trt_ptq.types import TensorSpec

INT32 = TensorSpec("i", np.dtype(np.int32), ("n",))


def names(reader: FeedsReader, item: Any, **options: bool) -> list[str]:
    return list(reader.batch(item, "item", **options).feeds)


@pytest.mark.parametrize("item", [{"x": rows(1), "y": rows(1)}, (rows(1), rows(1)), [rows(1), rows(1)]])
def test_dicts_tuples_and_lists_feed_the_inputs(item: Any) -> None:
    assert names(FeedsReader((X, Y)), item) == ["x", "y"]


def test_an_array_feeds_the_only_input() -> None:
    assert names(FeedsReader((X,)), rows(1)) == ["x"]


def test_an_array_for_two_inputs_is_refused() -> None:
    with pytest.raises(DataError, match=r"^item: expected a dict by input name, got an array: the model has 2 inputs"):
        FeedsReader((X, Y)).batch(rows(1), "item")


def test_too_few_arrays_are_refused() -> None:
    with pytest.raises(DataError, match=r"^item: has 1 arrays, but the model has 2 inputs \(x, y\)"):
        FeedsReader((X, Y)).batch((rows(1),), "item")


@pytest.mark.parametrize(
    ("item", "got"), [(3, "int"), (None, "NoneType"), ([1.0, 2.0], "list of float"), ((), "tuple of nothing")]
)
def test_other_items_are_refused_with_their_type(item: Any, got: str) -> None:
    with pytest.raises(DataError, match=f"^item: expected a dict of arrays by input name, got {got}$"):
        FeedsReader((X,)).batch(item, "item")


def test_labels_behind_the_inputs_are_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    reader = FeedsReader((X,))
    with caplog.at_level(logging.WARNING):
        assert [names(reader, (rows(1), np.zeros(1))) for _ in range(3)] == [["x"]] * 3
    assert caplog.messages == ["item: has 2 elements; only the first 1 are used, because the model has 1 input (x)"]


def test_labels_by_name_are_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    reader = FeedsReader((X,))
    with caplog.at_level(logging.WARNING):
        assert [names(reader, {"label": 1, "x": rows(1)}, ignore_extra=True) for _ in range(3)] == [["x"]] * 3
    assert caplog.messages == ["item: label ignored: the model has 1 input (x)"]


def test_a_missing_name_is_refused_where_others_are_ignored() -> None:
    with pytest.raises(DataError, match=r"^item: has images, but not x: the model has 1 input \(x\)"):
        FeedsReader((X,)).batch({"images": rows(1)}, "item", ignore_extra=True)


def test_other_names_stay_for_validation() -> None:
    assert names(FeedsReader((X,)), {"x": rows(1), "z": rows(1)}) == ["x", "z"]


@pytest.mark.parametrize(
    ("value", "spec", "dtype"),
    [
        ([1.0, 2.0], X, np.float32),
        ([1, 2], INT32, np.int32),
        ([1, 2**40], INT32, np.int64),
        ([1.5], INT32, np.float64),
        ([1, 2], X, np.int64),
        (np.zeros(2), X, np.float64),
        (np.float64(2), X, np.float64),
    ],
    ids=["floats", "ints", "too large", "fraction", "ints for floats", "array", "scalar"],
)
def test_python_numbers_take_the_dtype_of_the_input_if_their_kind_fits(
    value: Any, spec: TensorSpec, dtype: Any
) -> None:
    assert as_array(value, spec, "item").dtype == dtype


def test_what_numpy_cannot_convert_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"^item cannot be converted to a numpy array: ValueError: ") as caught:
        as_array([[1], [1, 2]], X, "item")
    assert "\n" not in str(caught.value)


def test_samples_of_different_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"^item: the samples have different shapes, \[4\] and \[3\]: pad them"):
        stack([np.zeros(4), np.zeros(3)], X, "item")


class TestTorch:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
    def test_a_tensor_keeps_its_dtype(self, dtype: str) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        assert as_array(torch.ones(2, dtype=getattr(torch, dtype)), X, "item").dtype == dtype

    def test_a_tensor_with_a_gradient_is_detached(self) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        assert as_array(torch.ones(2, requires_grad=True), X, "item").tolist() == [1, 1]

    def test_bfloat16_is_refused_with_the_conversion(self) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        with pytest.raises(DataError, match=r"^item is bfloat16, which numpy does not have: convert it with"):
            as_array(torch.ones(2, dtype=torch.bfloat16), X, "item")
