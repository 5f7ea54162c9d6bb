"""Inputs that were preprocessed differently are recognized; ordinary splits of one set of data are not."""

from __future__ import annotations

import numpy as np
import pytest

from trt_ptq.data.checks.input_ranges import InputRanges
from trt_ptq.types import Array

RNG = np.random.default_rng(0)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def ranges(*arrays: Array, max_batches: int | None = None) -> InputRanges:
    observed = InputRanges(max_batches)
    for array in arrays:
        observed.add({"x": array})
    return observed


def differ(one: Array, other: Array) -> bool:
    """Whether the two differ, which must not depend on their order."""
    found = {bool(list(ranges(first).differences(ranges(second)))) for first, second in ((one, other), (other, one))}
    assert len(found) == 1
    return found.pop()


def photos(samples: int) -> Array:
    """Images of 0 to 1, dark and bright, the last one black."""
    images = RNG.random((samples, 3, 8, 8)) * RNG.uniform(0.6, 1, (samples, 1, 1, 1))
    images[-1] = 0
    return images.astype(np.float32)


def standardized(images: Array) -> Array:
    return np.asarray((images - MEAN[:, None, None]) / DEVIATION[:, None, None])


@pytest.mark.parametrize(
    "other",
    [
        photos(20) * 255,
        standardized(photos(20)),
        photos(20) * 2 - 1,
        photos(20) * 255 - 120,
        photos(20) + 3,
    ],
    ids=["not divided by 255", "standardized", "-1 to 1", "mean subtracted", "shifted"],
)
def test_other_preprocessing_differs(other: Array) -> None:
    assert differ(photos(40), other)


@pytest.mark.parametrize("seed", range(10))
def test_splits_of_one_set_do_not_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loudness = 10 ** rng.uniform(-3, 0, (200, 1))
    heavy_tails = rng.standard_t(2, (200, 64))
    for data in (
        photos(200),
        standardized(photos(200)),
        rng.standard_normal((200, 64)) * loudness,
        heavy_tails,
        np.abs(heavy_tails),
        rng.standard_normal((200, 64)) + rng.uniform(-5, 5, (200, 1)),
        np.where(np.arange(64) < rng.integers(1, 65, (200, 1)), 0, -3.4e38).astype(np.float32),
        rng.integers(0, 30_000, (200, 64)),
    ):
        assert not differ(data[:192], data[192:])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros((8, 64), np.float32), photos(8)),
        (np.ones((8, 64), np.int64), np.zeros((8, 64), np.int64)),
        (photos(7), photos(7) * 255),
        (np.float32(1), np.float32(1000)),
        (np.empty((1, 3, 0, 64), np.float32), photos(8)),
        (np.full((8, 64), np.nan, np.float32), photos(8)),
        (np.ones((8, 64), bool), np.zeros((8, 64), bool)),
    ],
    ids=["constant", "constant integers", "few samples", "scalars", "empty", "not finite", "bool"],
)
def test_too_little_to_compare_does_not_differ(one: Array, other: Array) -> None:
    assert not differ(one, other)


def test_integers_differ_where_they_are_disjoint() -> None:
    tokens = RNG.integers(0, 100, (8, 64))
    assert differ(tokens, tokens + 100)
    assert not differ(tokens, tokens + 50)


def test_both_ranges_are_given_by_name_of_the_input() -> None:
    images = np.linspace(0, 1, 640, dtype=np.float32).reshape(64, 10).T
    assert list(ranges(images * 255).differences(ranges(images))) == [("x", "0 to 255", "0 to 1")]


def test_only_the_first_batches_are_read() -> None:
    images = photos(20)
    assert not list(ranges(images, images, images * 255, max_batches=2).differences(ranges(images)))
