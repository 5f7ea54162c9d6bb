"""Whether calibration data looks like real inputs: seen while it passes, at no second reading."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from trt_ptq.calibrators.batches import Array, Batch, BatchSource, sample_count

FEW_SAMPLES = 100  # NVIDIA and most authors advise several hundred
_NOISE = 0.02  # neighbours in images, audio and embeddings correlate more than this


class AuditedSource:
    """Passes batches on and remembers what is suspicious about them; read `findings()` after a full pass."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._start()

    def _start(self) -> None:
        self._samples = 0
        self._seen: dict[tuple[int, ...], str] = {}
        self._repeated: list[str] = []
        self._constant: list[str] = []
        self._correlation: dict[str, list[float]] = {}

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
        if self._repeated:
            found.append(f"{len(self._repeated)} batches repeat earlier ones, e.g. {self._repeated[0]}")
        if self._constant:
            found.append(f"{len(self._constant)} inputs hold one single value, e.g. {self._constant[0]}")
        for name, values in self._correlation.items():
            if max(map(abs, values)) < _NOISE:
                found.append(
                    f"input {name!r} looks like random noise (neighbouring values do not correlate): ranges from "
                    "random data are wrong for real data"
                )
        return found

    def _look(self, batch: Batch) -> None:
        self._samples += sample_count(batch.feeds)
        checksum = tuple(zlib.crc32(batch.feeds[name].tobytes()) for name in sorted(batch.feeds))
        if checksum in self._seen:
            self._repeated.append(f"{batch.origin} repeats {self._seen[checksum]}")
        self._seen.setdefault(checksum, batch.origin)
        for name, array in batch.feeds.items():
            if not np.issubdtype(array.dtype, np.floating):
                continue
            if array.size > 1 and array.min() == array.max():
                self._constant.append(f"{name!r} of {batch.origin}")
            elif array.ndim >= 3 and array.size >= 4096:
                self._correlation.setdefault(name, []).append(_neighbour_correlation(array))


def _neighbour_correlation(array: Array) -> float:
    """Correlation of each value with the next one along the last axis; 1 where it cannot be computed."""
    left, right = array[..., :-1].ravel(), array[..., 1:].ravel()
    if left.size < 2 or left.std() == 0 or right.std() == 0:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])
