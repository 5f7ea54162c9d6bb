"""A data fingerprint names a multiset of samples; a model identity tells what differs."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.provenance import DataFingerprint, ModelIdentity
from trt_ptq.types import Feeds, sample_count

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.standard_normal((12, 3, 4)).astype(np.float32)
LENGTHS = np.arange(12)


def fingerprint(*batches: Feeds) -> DataFingerprint:
    return reduce(add, map(DataFingerprint.from_feeds, batches), DataFingerprint())


def feeds(rows: Any) -> Feeds:
    """Two inputs with the sample first, and one without axes."""
    return {"image": IMAGES[rows], "length": LENGTHS[rows], "threshold": np.array(0.5)}


@given(st.permutations(range(12)), st.lists(st.integers(1, 11), max_size=6, unique=True))
def test_order_and_batches_do_not_matter(order: list[int], cuts: list[int]) -> None:
    batches = [feeds(part) for part in np.split(np.array(order), sorted(cuts))]
    assert fingerprint(*batches) == fingerprint(feeds(slice(None)))
    assert fingerprint(*batches).samples == 12


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.array([[1.0, 3.0]])},
        {"y": np.array([[1.0, 2.0]])},
        {"x": np.array([[1.0, 2.0]], np.float32)},
        {"x": np.array([[[1.0], [2.0]]])},
        {"x": np.array([[1.0, 2.0], [1.0, 2.0]])},
    ],
    ids=["value", "name", "dtype", "shape", "twice"],
)
def test_anything_else_matters(other: Feeds) -> None:
    assert fingerprint(other) != fingerprint({"x": np.array([[1.0, 2.0]])})


def test_the_layout_in_memory_does_not_matter() -> None:
    assert fingerprint({"x": np.asfortranarray(IMAGES)}) == fingerprint({"x": IMAGES})


def test_the_sum_wraps_and_keeps_its_length() -> None:
    total = DataFingerprint(1, "f" * 32) + DataFingerprint(1, "0" * 31 + "2")
    assert total == DataFingerprint(2, "0" * 31 + "1")


@pytest.mark.parametrize(
    ("arrays", "samples"),
    [
        ({"x": np.zeros((4, 2)), "y": np.zeros(4)}, 4),
        ({"x": np.zeros((4, 2)), "scalar": np.zeros(())}, 4),
        ({"scalar": np.zeros(())}, 1),
        ({"x": np.zeros((4, 2)), "y": np.zeros(3)}, 1),
    ],
)
def test_samples_are_counted_along_the_shared_first_axis(arrays: Feeds, samples: int) -> None:
    assert sample_count(arrays) == samples


def test_equal_models_do_not_differ() -> None:
    assert ModelIdentity("g", "w").difference(ModelIdentity("g", "w")) is None


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_strings_are_hashed_by_what_they_say(shape: tuple[int, ...]) -> None:
    def feeds(last: str) -> Feeds:
        strings = np.array([f"text {index}" for index in range(np.prod(shape))], object)
        strings[-1] = "".join(list(last))  # another object each time
        return {"s": strings.reshape(shape)}

    assert DataFingerprint.from_feeds(feeds("long text")) == DataFingerprint.from_feeds(feeds("long text"))
    assert DataFingerprint.from_feeds(feeds("long text")) != DataFingerprint.from_feeds(feeds("long_text"))
