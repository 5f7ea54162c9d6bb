"""One batch in five is held out, unless there is test data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from trt_ptq.data.subset import split_source
from trt_ptq.errors import DataError
from trt_ptq.types import Batch


@dataclass(frozen=True)
class Numbered:
    """`count` batches."""

    count: int
    known: bool = True

    @property
    def total(self) -> int | None:
        return self.count if self.known else None

    def __iter__(self) -> Iterator[Batch]:
        return (Batch({"x": np.zeros(1)}, str(index)) for index in range(self.count))


@pytest.mark.parametrize("count", range(2, 23))
def test_every_batch_is_on_one_side_and_one_in_five_is_held_out(count: int) -> None:
    calibration, held_out = split_source(Numbered(count), None)
    kept = [int(batch.origin) for batch in calibration]
    out = [int(batch.origin) for batch in held_out]
    assert sorted(kept + out) == list(range(count))
    assert out == list(range(1, count, 5))
    assert (calibration.total, held_out.total) == (len(kept), len(out))


def test_both_sides_are_the_same_on_every_pass() -> None:
    for side in split_source(Numbered(11), None):
        assert [batch.origin for batch in side] == [batch.origin for batch in side]


def test_an_unknown_total_stays_unknown() -> None:
    assert [side.total for side in split_source(Numbered(7, known=False), None)] == [None, None]


def test_test_data_leaves_the_calibration_data_whole() -> None:
    source, test = Numbered(1), Numbered(3)
    assert split_source(source, test) == (source, test)


def test_a_single_batch_is_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"a single batch, .*: give --test-data, or several batches"):
        split_source(Numbered(1), None)
