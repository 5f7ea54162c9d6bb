"""What statistics and tables were made from, so that they are never used for something else."""

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
    """Hashes of a model: `graph` of nodes, attributes and names, `weights` of the initializers."""

    graph: str
    weights: str

    def difference(self, other: ModelIdentity) -> str | None:
        """What differs from `other`, in words; None when both are the same model."""
        if self == other:
            return None
        if self.graph == other.graph:
            return (
                "the graph is the same but the weights differ (retrained, fine-tuned, or as equalisation and "
                "SmoothQuant change them: then give model.transformed.onnx)"
            )
        if self.weights == other.weights:
            return "the weights are the same but the graph differs (exported or edited anew?)"
        return "both graph and weights differ"


@dataclass(frozen=True, order=True)
class Shard:
    """Part number `index` (from 0) of data of `batches` batches that were shared among `count` runs."""

    index: int
    count: int
    batches: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def join_shards(some: Iterable[Shard], others: Iterable[Shard]) -> tuple[Shard, ...]:
    """Both in order, without those that together are all of their data.

    Raises:
        StatisticsError: one of them is there twice.
    """
    joined = sorted([*some, *others])
    twice = [str(one) for one, following in pairwise(joined) if one == following]
    if twice:
        raise StatisticsError(
            f"shard {twice[0]} is there twice, and would count twice: give each one once; of several data sets, merge "
            "the shards of each by itself first"
        )
    lacking = {(one.count, one.batches) for one in missing_shards(joined)}
    return tuple(one for one in joined if (one.count, one.batches) in lacking)


def missing_shards(shards: Collection[Shard]) -> list[Shard]:
    """What `shards` lack to be all of their data, in order."""
    there = set(shards)
    return sorted(
        needed
        for count, batches in {(one.count, one.batches) for one in shards}
        for needed in (Shard(index, count, batches) for index in range(min(count, batches)))  # the last have no batch
        if needed not in there
    )


@dataclass(frozen=True)
class DataFingerprint:
    """A multiset of samples: how many, and the sum of their hashes modulo 2**128.

    A sum does not depend on order, on batch size, or on how the samples were split over machines
    (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997, AdHash).
    """

    samples: int = 0
    digest: str = "0" * 32

    def __add__(self, other: DataFingerprint) -> DataFingerprint:
        total = (int(self.digest, 16) + int(other.digest, 16)) % _MODULUS
        return DataFingerprint(self.samples + other.samples, f"{total:032x}")

    @classmethod
    def from_feeds(cls, feeds: Feeds) -> DataFingerprint:
        """Fingerprint of one batch; an input without axes counts as part of every sample."""
        samples = sample_count(feeds)
        names = sorted(feeds)
        arrays = {name: np.asarray(feeds[name]) for name in names}
        total = 0
        for index in range(samples):
            hasher = hashlib.sha256()  # in hardware on most processors, so twice as fast as BLAKE2b
            for name in names:
                array = arrays[name]
                value = np.asarray(array[index] if array.ndim and len(array) == samples else array)
                if value.dtype.hasobject:
                    value = value.astype(str)  # the bytes of objects are their addresses
                hasher.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
                hasher.update(value.tobytes() if value.dtype.kind == "U" else np.ascontiguousarray(value).data)
            total += int.from_bytes(hasher.digest()[:16], "big")
        return cls(samples, f"{total % _MODULUS:032x}")
