"""Which parts of the data statistics are of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.errors import StatisticsError
from trt_ptq.provenance import Shard, join_shards, missing_shards


@given(st.integers(1, 12), st.integers(1, 12), st.randoms())
def test_all_shards_in_any_order_are_complete(count: int, batches: int, random: object) -> None:
    shards = [Shard(index, count, batches) for index in range(min(count, batches))]
    random.shuffle(shards)  # type: ignore[attr-defined]
    joined: Sequence[Shard] = ()
    for done, shard in enumerate(shards, start=1):
        joined = join_shards(joined, [shard])
        assert len(joined) == (done if done < len(shards) else 0)


def test_shards_of_other_data_are_distinguished_by_its_size() -> None:
    joined = join_shards([Shard(0, 2, 10)], [Shard(0, 2, 11)])
    assert missing_shards(joined) == [Shard(1, 2, 10), Shard(1, 2, 11)]


def test_a_duplicate_shard_is_refused() -> None:
    with pytest.raises(StatisticsError, match="shard 0/2 occurs twice"):
        join_shards([Shard(0, 2, 10)], [Shard(1, 2, 11), Shard(0, 2, 10)])
