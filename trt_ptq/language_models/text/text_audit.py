"""Says what text calibration uses, and what is suspicious about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.language_models.text.sampling import length_bucket

_ADVISED = ((1e9, 100, 500), (10e9, 500, 1000), (float("inf"), 1000, 2000))  # parameters below, least, most samples
_NGRAM = 13  # tokens: GPT-3's check for test data in the training data (Brown et al., 2020, appendix C)
_OVERLAPPING = 0.5  # fraction of the n-grams of a sample
_RANDOM = 0.95  # of the entropy that uniformly random tokens have; English text has 0.6 to 0.85
_ENOUGH_TOKENS = 512


@dataclass(frozen=True)
class LengthBucket:
    """Number of samples with `start` to `stop` tokens, both inclusive."""

    start: int
    stop: int
    samples: int


@dataclass(frozen=True)
class TextAudit:
    """What the calibration text consists of.

    Attributes:
        read: number of texts that were read; pieces of long texts count each.
        near_duplicates: how many of them were dropped.
        samples: how many were drawn for calibration.
        held_out: how many are for the evaluation.
        tokens: number of tokens of the calibration samples.
        lengths: the calibration samples by length.
        groups: the calibration samples by source and language; empty without such columns.
        findings: warnings, a sentence each.
    """

    read: int
    near_duplicates: int
    samples: int
    held_out: int
    tokens: int
    lengths: tuple[LengthBucket, ...]
    groups: dict[str, int]
    findings: tuple[str, ...]

    def __str__(self) -> str:
        lengths = ", ".join(f"{bucket.samples} of {bucket.start}-{bucket.stop}" for bucket in self.lengths)
        groups = "".join(f"; {name}: {count}" for name, count in self.groups.items())
        return (
            f"{self.samples} calibration texts of {self.tokens} tokens ({lengths} tokens{groups}), {self.held_out} "
            f"held out; {self.read} read, {self.near_duplicates} near-duplicates dropped"
        )


def advised_samples(parameters: int) -> tuple[int, int]:
    """How many calibration texts are advised, at least and at most, for a model with that many parameters."""
    return next((least, most) for below, least, most in _ADVISED if parameters < below)


def audit_text(
    read: int,
    near_duplicates: int,
    calibration: Sequence[TokenSample],
    held_out: Sequence[TokenSample],
    parameters: int,
    vocabulary: int | None,
) -> TextAudit:
    """Look at the text that was drawn.

    Args:
        read: number of texts that were read.
        near_duplicates: how many of them were dropped.
        calibration: the samples to calibrate with.
        held_out: the samples to evaluate on.
        parameters: number of parameters of the model.
        vocabulary: number of its tokens, if known.
    """
    lengths = Counter(length_bucket(len(sample.ids)) for sample in calibration)
    groups = Counter(" / ".join(sample.group) for sample in calibration if sample.group)
    return TextAudit(
        read=read,
        near_duplicates=near_duplicates,
        samples=len(calibration),
        held_out=len(held_out),
        tokens=sum(len(sample.ids) for sample in calibration),
        lengths=tuple(LengthBucket(*bucket, samples=count) for bucket, count in sorted(lengths.items())),
        groups=dict(sorted(groups.items())),
        findings=(
            *_too_few(len(calibration), parameters),
            *_overlap(calibration, held_out),
            *_random(calibration, vocabulary),
        ),
    )


def _too_few(samples: int, parameters: int) -> list[str]:
    least, most = advised_samples(parameters)
    if samples >= least:
        return []
    return [
        f"only {samples} calibration texts: {least} to {most} are advised for a model with "
        f"{parameters / 1e6:,.3g} million parameters"
    ]


def _overlap(calibration: Sequence[TokenSample], held_out: Sequence[TokenSample]) -> list[str]:
    evaluated = {gram for sample in held_out for gram in sample.ngrams(_NGRAM)}
    overlapping = [sample for sample in calibration if _is_in(sample, evaluated)]
    if not overlapping:
        return []
    return [
        f"{len(overlapping)} of {len(calibration)} calibration texts are also in the evaluation text, e.g. "
        f"{overlapping[0].origin}: the perplexity on new text may be higher (give other `test_data`)"
    ]


def _is_in(sample: TokenSample, ngrams: set[bytes]) -> bool:
    own = sample.ngrams(_NGRAM)
    return len(own & ngrams) >= _OVERLAPPING * len(own)


def _random(calibration: Sequence[TokenSample], vocabulary: int | None) -> list[str]:
    tokens = np.concatenate([sample.ids for sample in calibration])
    if vocabulary is None or len(tokens) < _ENOUGH_TOKENS:
        return []
    uniform = np.random.default_rng(0).integers(0, vocabulary, len(tokens))
    fraction = _entropy(tokens) / _entropy(uniform)
    if fraction < _RANDOM:
        return []
    return [
        f"the calibration text looks like random tokens (its entropy is {fraction:.0%} of that of uniformly random "
        "ones): ranges from it are wrong for real text"
    ]


def _entropy(tokens: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> float:
    frequencies = np.unique(tokens, return_counts=True)[1] / len(tokens)
    return float(-(frequencies * np.log2(frequencies)).sum())
