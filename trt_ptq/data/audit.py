"""Whether calibration data looks like real inputs: seen while it passes, at no second reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from trt_ptq.types import Array, Batch, BatchSource, sample_count

FEW_SAMPLES = 100  # NVIDIA and most authors advise several hundred
_REMEMBERED = 100_000  # batches looked at for repeats: memory must not grow with the data
_NOISE = 0.02  # neighbours in images, audio and embeddings correlate more than this


@dataclass
class _Cases:
    """How often something was seen, and the first time."""

    count: int = 0
    first: str = ""

    def add(self, case: str) -> None:
        self.first = self.first or case
        self.count += 1

    def merge(self, other: _Cases) -> None:
        self.count += other.count
        self.first = self.first or other.first


@dataclass
class Audit:
    """What has been seen of the data so far; audits of shards merge."""

    samples: int = 0
    seen: dict[bytes, str] = field(default_factory=dict)  # origin by digest
    repeated: _Cases = field(default_factory=_Cases)
    constant: _Cases = field(default_factory=_Cases)
    correlation: dict[str, float] = field(default_factory=dict)  # by input, the largest magnitude until it is no noise

    def look(self, batch: Batch) -> None:
        self.samples += sample_count(batch.feeds)
        self._remember(_digest(batch), batch.origin)
        for name, array in batch.feeds.items():
            if not np.issubdtype(array.dtype, np.floating):
                continue
            if array.size > 1 and array.min() == array.max():
                self.constant.add(f"{name!r} of {batch.origin}")
            elif array.ndim >= 3 and array.size >= 4096 and self.correlation.get(name, 0.0) < _NOISE:
                # one batch that correlates settles it; the rest would cost more than hashing them
                self._correlate(name, _neighbour_correlation(array))

    def merge(self, other: Audit) -> None:
        """Add what was seen of other batches; the counts are those of one audit of all, the examples may be others."""
        self.samples += other.samples
        self.repeated.merge(other.repeated)
        for digest, origin in other.seen.items():
            self._remember(digest, origin)
        self.constant.merge(other.constant)
        for name, correlation in other.correlation.items():
            self._correlate(name, correlation)

    def findings(self, is_shard: bool = False) -> list[str]:
        """Warnings, each a sentence that names the input or batch. A shard is not blamed for having few samples."""
        found = [] if is_shard else few_samples(self.samples)
        if self.repeated.count:
            found.append(f"{self.repeated.count} batches repeat earlier ones, e.g. {self.repeated.first}")
        if self.constant.count:
            found.append(f"{self.constant.count} inputs hold one single value, e.g. {self.constant.first}")
        for name, correlation in self.correlation.items():
            if correlation < _NOISE:
                found.append(
                    f"input {name!r} looks like random noise (neighbouring values do not correlate): ranges from "
                    "random data are wrong for real data"
                )
        return found

    def _remember(self, digest: bytes, origin: str) -> None:
        if digest in self.seen:
            self.repeated.add(f"{origin} repeats {self.seen[digest]}")
        elif len(self.seen) < _REMEMBERED:
            self.seen[digest] = origin

    def _correlate(self, name: str, correlation: float) -> None:
        self.correlation[name] = max(self.correlation.get(name, 0.0), correlation)


class AuditedSource:
    """Passes batches on and audits them; read `findings()` after a full pass."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self.audit = Audit()

    @property
    def total(self) -> int | None:
        return self._source.total

    def __iter__(self) -> Iterator[Batch]:
        self.audit = Audit()
        for batch in self._source:
            self.audit.look(batch)
            yield batch

    def findings(self, is_shard: bool = False) -> list[str]:
        """Warnings: see `Audit.findings`."""
        return self.audit.findings(is_shard)

    def has_seen(self, batch: Batch) -> bool:
        """Whether the very same batch has passed."""
        return _digest(batch) in self.audit.seen


class HeldOutSource:
    """Passes held-out batches on and looks whether they were `calibrated` with; read `findings()` after a full pass."""

    def __init__(self, source: BatchSource, calibrated: AuditedSource) -> None:
        self._source = source
        self._calibrated = calibrated
        self._known = _Cases()

    @property
    def total(self) -> int | None:
        return self._source.total

    def __iter__(self) -> Iterator[Batch]:
        self._known = _Cases()
        for batch in self._source:
            if self._calibrated.has_seen(batch):
                self._known.add(batch.origin)
            yield batch

    def findings(self) -> list[str]:
        """Warnings, each a sentence that names the batch."""
        if not self._known.count:
            return []
        return [
            f"{self._known.count} batches that the models are compared on were calibrated with too, e.g. "
            f"{self._known.first}: the accuracy on new data may be lower (give other --test-data; a loader must yield "
            "the same batches in the same order each time)"
        ]


def few_samples(samples: int) -> list[str]:
    """A warning, if there are fewer than is advised."""
    if samples >= FEW_SAMPLES:
        return []
    return [f"only {samples} calibration samples: {FEW_SAMPLES} to 1000 are advised"]


def _digest(batch: Batch) -> bytes:
    hasher = hashlib.blake2b(digest_size=8)
    for name in sorted(batch.feeds):
        array = batch.feeds[name]
        hasher.update(f"{name}|{array.shape}|".encode())
        hasher.update((array.astype(str) if array.dtype.hasobject else array).tobytes())  # no addresses of objects
    return hasher.digest()


def _neighbour_correlation(array: Array) -> float:
    """Magnitude of the correlation of each value with the next one along the last axis; 1 where it has none."""
    left, right = array[..., :-1].ravel(), array[..., 1:].ravel()
    with np.errstate(all="ignore"):  # NaN, for constant or non-finite values, which may be allowed
        correlation = abs(float(np.corrcoef(left, right)[0, 1])) if left.size > 1 else 1.0
    return correlation if np.isfinite(correlation) else 1.0
