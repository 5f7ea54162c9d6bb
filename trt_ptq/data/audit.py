"""Whether calibration data looks like real inputs: seen while it passes, at no second reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trt_ptq.calibrators.batches import Array, Batch, BatchSource, sample_count

FEW_SAMPLES = 100  # NVIDIA and most authors advise several hundred
_REMEMBERED = 100_000  # batches looked at for repeats: memory must not grow with the data
_NOISE = 0.02  # neighbours in images, audio and embeddings correlate more than this


class AuditedSource:
    """Passes batches on and remembers what is suspicious about them; read `findings()` after a full pass."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._start()

    def _start(self) -> None:
        self._samples = 0
        self._seen: dict[bytes, str] = {}
        self._repeated = _Cases()
        self._constant = _Cases()
        self._correlation: dict[str, float] = {}  # by input, the largest magnitude of all batches

    @property
    def total(self) -> int | None:
        return self._source.total

    def __iter__(self) -> Iterator[Batch]:
        self._start()
        for batch in self._source:
            self._look(batch)
            yield batch

    def findings(self) -> list[str]:
        """Warnings, each a sentence that names the input or batch."""
        found = []
        if self._samples < FEW_SAMPLES:
            found.append(f"only {self._samples} calibration samples: {FEW_SAMPLES} to 1000 are advised")
        if self._repeated.count:
            found.append(f"{self._repeated.count} batches repeat earlier ones, e.g. {self._repeated.first}")
        if self._constant.count:
            found.append(f"{self._constant.count} inputs hold one single value, e.g. {self._constant.first}")
        for name, correlation in self._correlation.items():
            if correlation < _NOISE:
                found.append(
                    f"input {name!r} looks like random noise (neighbouring values do not correlate): ranges from "
                    "random data are wrong for real data"
                )
        return found

    def has_seen(self, batch: Batch) -> bool:
        """Whether the very same batch has passed."""
        return _digest(batch) in self._seen

    def _look(self, batch: Batch) -> None:
        self._samples += sample_count(batch.feeds)
        digest = _digest(batch)
        if digest in self._seen:
            self._repeated.add(f"{batch.origin} repeats {self._seen[digest]}")
        elif len(self._seen) < _REMEMBERED:
            self._seen[digest] = batch.origin
        for name, array in batch.feeds.items():
            if not np.issubdtype(array.dtype, np.floating):
                continue
            if array.size > 1 and array.min() == array.max():
                self._constant.add(f"{name!r} of {batch.origin}")
            elif array.ndim >= 3 and array.size >= 4096:
                self._correlation[name] = max(self._correlation.get(name, 0.0), _neighbour_correlation(array))


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


@dataclass
class _Cases:
    """How often something was seen, and the first time."""

    count: int = 0
    first: str = ""

    def add(self, case: str) -> None:
        self.first = self.first or case
        self.count += 1


def _digest(batch: Batch) -> bytes:
    hasher = hashlib.blake2b(digest_size=8)
    for name in sorted(batch.feeds):
        array = batch.feeds[name]
        hasher.update(f"{name}|{array.shape}|".encode())
        hasher.update(array.tobytes())
    return hasher.digest()


def _neighbour_correlation(array: Array) -> float:
    """Magnitude of the correlation of each value with the next one along the last axis; 1 where it has none."""
    left, right = array[..., :-1].ravel(), array[..., 1:].ravel()
    with np.errstate(all="ignore"):  # NaN, for constant or non-finite values, which may be allowed
        correlation = abs(float(np.corrcoef(left, right)[0, 1])) if left.size > 1 else 1.0
    return correlation if np.isfinite(correlation) else 1.0
