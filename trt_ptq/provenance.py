"""The model and data that statistics and tables were made from, so that they are never used for others."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trt_ptq.errors import StatisticsError
from trt_ptq.types import Feeds, sample_count

_MODULUS = 2**128


@dataclass(frozen=True)
class ModelIdentity:
    """Hashes of a model: `graph` covers nodes, attributes and names, `weights` the initializers."""

    graph: str
    weights: str

    def difference(self, other: ModelIdentity) -> str | None:
        """Say what differs from `other`; None if both are the same model."""
        if self == other:
            return None
        if self.graph == other.graph:
            return (
                "the graph is the same but the weights differ (retrained or fine-tuned? For a model changed by "
                "equalization, rotation, SmoothQuant or GPTQ, use model.transformed.onnx)"
            )
        if self.weights == other.weights:
            return "the weights are the same but the graph differs (exported again or edited?)"
        return "both graph and weights differ"


@dataclass(frozen=True, order=True)
class Shard:
    """Part `index` (from 0) of data with `batches` batches that is split over `count` runs."""

    index: int
    count: int
    batches: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def join_shards(some: Iterable[Shard], others: Iterable[Shard]) -> tuple[Shard, ...]:
    """Return the shards of both in order, without those that together cover all of their data.

    Raises:
        StatisticsError: A shard occurs twice.
    """
    joined = sorted([*some, *others])
    duplicates = [str(shard) for shard, following in pairwise(joined) if shard == following]
    if duplicates:
        raise StatisticsError(
            f"shard {duplicates[0]} occurs twice, and would count twice: give each shard once; to merge several data "
            "sets, first merge the shards of each data set"
        )
    incomplete = {(shard.count, shard.batches) for shard in missing_shards(joined)}
    return tuple(shard for shard in joined if (shard.count, shard.batches) in incomplete)


def missing_shards(shards: Collection[Shard]) -> list[Shard]:
    """Return the shards that are missing to cover all of the data, in order."""
    present = set(shards)
    return sorted(
        shard
        for count, batches in {(shard.count, shard.batches) for shard in shards}
        for shard in (Shard(index, count, batches) for index in range(min(count, batches)))  # further ones are empty
        if shard not in present
    )


@dataclass(frozen=True)
class DataFingerprint:
    """A multiset of samples: how many, and the sum of their hashes modulo 2**128.

    The sum does not depend on the order, on the batch size, or on how the samples were split over machines.

    Source: Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997 (AdHash).
    """

    samples: int = 0
    digest: str = "0" * 32

    def __add__(self, other: DataFingerprint) -> DataFingerprint:
        total = (int(self.digest, 16) + int(other.digest, 16)) % _MODULUS
        return DataFingerprint(self.samples + other.samples, f"{total:032x}")

    @classmethod
    def from_feeds(cls, feeds: Feeds) -> DataFingerprint:
        """Return the fingerprint of one batch."""
        hashes = sample_hashes(feeds)
        return cls(len(hashes), f"{sum(hashes) % _MODULUS:032x}")


def sample_hashes(feeds: Feeds) -> list[int]:
    """The hash of each sample of a batch, 128 bits. Inputs without samples, such as scalars, count in every sample."""
    samples = sample_count(feeds)
    names = sorted(feeds)
    arrays = {name: np.asarray(feeds[name]) for name in names}
    hashes = []
    for index in range(samples):
        hasher = hashlib.sha256()  # most processors have instructions for it, so it is twice as fast as BLAKE2b
        for name in names:
            array = arrays[name]
            value = np.asarray(array[index] if array.ndim and len(array) == samples else array)
            if value.dtype.hasobject:
                value = value.astype(str)  # the bytes of an object array are addresses
            hasher.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
            hasher.update(value.tobytes() if value.dtype.kind == "U" else np.ascontiguousarray(value).data)
        hashes.append(int.from_bytes(hasher.digest()[:16], "big"))
    return hashes
