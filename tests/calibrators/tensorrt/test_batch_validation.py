"""Which batches reach TensorRT, and how the others are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calibrators.tensorrt.builds.building import Feeds, batch, batches
from trt_ptq.calibrators.tensorrt.batch_validation import BatchValidator
from trt_ptq.calibrators.tensorrt.calibration_warning import CalibrationWarning
from trt_ptq.calibrators.tensorrt.network_inputs import InputSpec
from trt_ptq.errors import DataError
from trt_ptq.types import Batch

INPUTS = {"image": InputSpec("float32", (4, 3, 2, 2)), "mask": InputSpec("float32", (4, 5))}
NAMES = ("image", "mask")


def validate(feeds: Iterable[Feeds], inputs: dict[str, InputSpec] | None = INPUTS) -> list[Feeds]:
    validator = BatchValidator(inputs)
    return [validator.validate(Batch(item, f"batch {index}"), NAMES) for index, item in enumerate(feeds)]


def test_full_batches_pass_unchanged() -> None:
    for original, validated in zip(batches(3), validate(batches(3)), strict=True):
        assert {name: array.tobytes() for name, array in validated.items()} == {
            name: array.tobytes() for name, array in original.items()
        }


def test_arrays_are_made_contiguous() -> None:
    feeds = batch(0)
    feeds["mask"] = np.asfortranarray(feeds["mask"])
    [validated] = validate([feeds])
    assert validated["mask"].flags.c_contiguous
    assert np.array_equal(validated["mask"], feeds["mask"])


def test_an_axis_that_is_empty_in_opt_is_empty_in_the_batches() -> None:
    inputs = {"past": InputSpec("float32", (4, 3, 0, 8)), "ids": InputSpec("int64", (4, 2))}
    validator = BatchValidator(inputs)
    feeds: Feeds = {"past": np.zeros((4, 3, 0, 8), np.float32), "ids": np.ones((4, 2), np.int64)}
    validated = validator.validate(Batch(feeds, "batch 0"), ["past", "ids"])
    assert validated["past"].shape == (4, 3, 0, 8)
    small = Batch({name: array[:3] for name, array in feeds.items()}, "batch 1")
    with pytest.warns(CalibrationWarning):
        validated = validator.validate(small, ["past", "ids"])
    assert validated["past"].shape == (4, 3, 0, 8)
    with pytest.raises(DataError, match="'past' has shape"):
        BatchValidator(inputs).validate(Batch({**feeds, "past": np.zeros((4, 3, 1, 8), np.float32)}, "b"), ["past"])


@given(samples=st.integers(1, 7))
def test_small_last_batch_is_filled_up_with_its_own_samples_in_turn(samples: int) -> None:
    array = np.arange(samples, dtype=np.float32)[:, None]
    validator = BatchValidator({"x": InputSpec("float32", (8, 1))})
    with pytest.warns(CalibrationWarning, match=f"batch 0: has {samples} samples, calibration reads 8"):
        validated = validator.validate(Batch({"x": array}, "batch 0"), ["x"])["x"]
    assert validated[:, 0].tolist() == [index % samples for index in range(8)]
    assert validator.repeated_samples == 8 - samples


def test_input_without_the_batch_axis_is_unchanged_in_a_small_batch() -> None:
    validator = BatchValidator({"x": InputSpec("float32", (8, 1)), "grid": InputSpec("float32", (3, 2))})
    feeds = {"x": np.ones((5, 1), np.float32), "grid": np.ones((3, 2), np.float32)}
    with pytest.warns(CalibrationWarning):
        validated = validator.validate(Batch(feeds, "batch 0"), ["x", "grid"])
    assert validated["x"].shape == (8, 1)
    assert validated["grid"] is feeds["grid"]


@pytest.mark.filterwarnings("ignore::trt_ptq.calibrators.tensorrt.calibration_warning.CalibrationWarning")
def test_only_the_last_batch_may_be_small() -> None:
    with pytest.raises(DataError, match=r"batch 1: has 3 samples, but calibration reads 4 .*only the last batch may"):
        validate([batch(0), batch(1, size=3), batch(2)])


@pytest.mark.filterwarnings("ignore::trt_ptq.calibrators.tensorrt.calibration_warning.CalibrationWarning")
def test_batches_that_are_all_smaller_than_the_profile_are_refused_with_opt() -> None:
    with pytest.raises(DataError, match=r"batch 0: has 3 samples, but calibration reads 4 .*set OPT to 3"):
        validate([batch(0, size=3), batch(1, size=3)])


def test_without_a_network_batches_must_match_the_first_batch() -> None:
    with pytest.raises(DataError, match=r"batch 1: input 'image' has shape \[6, 3, 2, 2\], calibration reads \[4, 3"):
        validate([batch(0), batch(1, size=6)], inputs=None)


def changed(**arrays: Any) -> Feeds:
    return {**batch(0), **arrays}


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"image": batch(0)["image"]}, r"batch 0: wrong input names \(mask missing\): the network takes image, mask"),
        (changed(extra=np.ones(1)), r"wrong input names \('extra' unknown\)"),
        (changed(mask=np.ones((4, 5))), r"input 'mask' is float64, TensorRT reads float32: .*astype\(numpy.float32\)"),
        (changed(mask=np.ones((4, 5), np.float16)), "input 'mask' is float16, TensorRT reads float32"),
        (changed(mask=np.ones((4, 5), np.int32)), "input 'mask' is int32, TensorRT reads float32"),
        (changed(mask=np.ones((4, 6), np.float32)), r"input 'mask' has shape \[4, 6\], calibration reads \[4, 5\]"),
        (changed(mask=np.ones((8, 5), np.float32)), r"shape \[8, 5\], .*set OPT of the calibration profile to theirs"),
        (changed(mask=np.ones((0, 5), np.float32)), r"shape \[0, 5\]"),
        (changed(mask=np.ones(5, np.float32)), r"shape \[5\]"),
        (changed(mask=np.ones((3, 5), np.float32)), "ragged batch: mask has 3 samples of 4, image has 4 of 4"),
        (changed(mask=np.full((4, 5), np.nan, np.float32)), r"input 'mask' has nan at \[0, 0\]"),
    ],
)
def test_batch_that_does_not_fit_is_named_with_what_was_expected(feeds: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        validate([feeds])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_floats_must_be_float32_without_a_network_too(dtype: str) -> None:
    with pytest.raises(DataError, match=f"input 'mask' is {dtype}, TensorRT reads float32"):
        validate([changed(mask=np.ones((4, 5), dtype))], inputs=None)


def test_the_origin_of_a_batch_is_named() -> None:
    with pytest.raises(DataError, match=r"^data/7\.npz: wrong input names"):
        BatchValidator(INPUTS).validate(Batch({}, "data/7.npz"), NAMES)
