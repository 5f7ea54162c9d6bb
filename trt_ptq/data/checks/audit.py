"""Checks whether calibration data looks like real inputs, in the pass that reads it anyway."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from trt_ptq._internal.listing import counted
from trt_ptq.provenance import sample_hashes
from trt_ptq.types import Array, Batch

FEW_SAMPLES = 100  # NVIDIA and most authors advise several hundred
_REMEMBERED = 100_000  # batches compared for repeats: memory must not grow with the data
_REMEMBERED_SAMPLES = 1_000_000  # that held-out samples are compared with
_NOISE = 0.02  # neighbours on some axis of images, audio, time series and KV caches correlate more than this
_DEVIATIONS = 4  # standard deviations: random values hardly ever correlate more than this by chance
_ENOUGH_VALUES = 4096  # fewer values correlate too much by chance


@dataclass
class _Cases:
    """How often something occurred, and its first occurrence."""

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
    """Observes calibration data; the audits of shards can be merged."""

    samples: int = 0
    seen: dict[tuple[int, int], str] = field(default_factory=dict)  # origin by samples and hash of the batch
    calibrated: set[int] = field(default_factory=set)  # hashes of samples, in any pass
    repeated: _Cases = field(default_factory=_Cases)
    constant: _Cases = field(default_factory=_Cases)
    structured: dict[str, bool] = field(default_factory=dict)  # by input: whether neighbouring values ever correlated

    def observe(self, batch: Batch) -> None:
        """Count the samples of `batch` and check them for repeats, constants and noise."""
        hashes = sample_hashes(batch.feeds)
        self.samples += len(hashes)
        self._remember((len(hashes), hash(tuple(hashes))), batch.origin)
        self._add_calibrated(hashes)
        for name, array in batch.feeds.items():
            if not np.issubdtype(array.dtype, np.floating):
                continue
            if array.size > 1 and array.min() == array.max():
                self.constant.add(f"{name!r} of {batch.origin}")
            elif array.ndim >= 3 and array.size >= _ENOUGH_VALUES and not self.structured.get(name):
                # one batch that correlates is enough; computing it for the rest would cost more than hashing them
                self.structured[name] = _has_structure(array)

    def observe_again(self, batch: Batch) -> None:
        """Note the samples of a later pass: a loader that shuffles may yield others than in the first."""
        self._add_calibrated(sample_hashes(batch.feeds))

    def merge(self, other: Audit) -> None:
        """Add the observations of another audit. The counts equal those of one audit of all data; examples may
        differ."""
        self.samples += other.samples
        self.repeated.merge(other.repeated)
        for digest, origin in other.seen.items():
            self._remember(digest, origin)
        self._add_calibrated(other.calibrated)
        self.constant.merge(other.constant)
        for name, structured in other.structured.items():
            self.structured[name] = structured or self.structured.get(name, False)

    def findings(self, is_shard: bool = False) -> list[str]:
        """Warnings, each a sentence that names the input or batch. A shard may have few samples."""
        findings = [] if is_shard else few_samples(self.samples)
        if self.repeated.count:
            findings.append(f"{self.repeated.count} batches repeat earlier ones, e.g. {self.repeated.first}")
        if self.constant.count:
            findings.append(f"{self.constant.count} inputs have a single constant value, e.g. {self.constant.first}")
        for name, structured in self.structured.items():
            if not structured:
                findings.append(
                    f"input {name!r} looks like random noise (neighbouring values do not correlate on any axis): if "
                    "the data is synthetic, ranges from it are wrong for real data"
                )
        return findings

    def _remember(self, digest: tuple[int, int], origin: str) -> None:
        if digest in self.seen:
            self.repeated.add(f"{origin} repeats {self.seen[digest]}")
        elif len(self.seen) < _REMEMBERED:
            self.seen[digest] = origin

    def _add_calibrated(self, hashes: Iterable[int]) -> None:
        self.calibrated.update(islice(hashes, _REMEMBERED_SAMPLES - len(self.calibrated)))


class HeldOutAudit:
    """Observes held-out data and checks whether its samples were calibrated with, as `calibration` has seen them.

    Samples are compared, not batches: a loader that shuffles puts them into other batches in each pass.
    """

    def __init__(self, calibration: Audit) -> None:
        self._calibration = calibration
        self._first = ""
        self._samples = 0
        self.num_calibrated = 0  # samples that calibration used as well

    def observe(self, batch: Batch) -> None:
        """Check which samples of `batch` calibration used."""
        hashes = sample_hashes(batch.feeds)
        calibrated = sum(sample in self._calibration.calibrated for sample in hashes)
        self._samples += len(hashes)
        self.num_calibrated += calibrated
        if calibrated:
            self._first = self._first or batch.origin

    def findings(self) -> list[str]:
        """Warnings, each a sentence that names a batch."""
        if not self.num_calibrated:
            return []
        return [
            f"{self.num_calibrated} of {self._samples} samples of the comparison were also used for calibration, e.g. "
            f"in {self._first}: the accuracy on new data may be lower (give other `test_data`; a loader must yield the "
            "same batches in the same order in every pass, so without shuffling)"
        ]


def few_samples(samples: int) -> list[str]:
    """A warning if there are fewer samples than advised."""
    if samples >= FEW_SAMPLES:
        return []
    return [f"only {counted(samples, 'calibration sample')}: {FEW_SAMPLES} to 1000 are advised"]


def _has_structure(array: Array) -> bool:
    """Whether each value correlates with the next one along some axis, more than random values do by chance."""
    for axis in reversed(range(array.ndim)):  # the last one first: it mostly decides
        size = array.shape[axis]
        if size > 1 and _correlate(array.take(range(size - 1), axis), array.take(range(1, size), axis)):
            return True
    return False


def _correlate(left: Array, right: Array) -> bool:
    with np.errstate(all="ignore"):  # NaN, for constant or non-finite values, which may be allowed
        correlation = abs(float(np.corrcoef(left.ravel(), right.ravel())[0, 1])) if left.size > 1 else np.nan
    return not correlation < max(_NOISE, _DEVIATIONS / math.sqrt(left.size))  # NaN is undecided
