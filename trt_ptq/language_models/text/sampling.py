"""Draws samples so that all lengths, sources and languages are covered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trt_ptq.language_models.text.samples import TokenSample

_SEED = 0


def length_bucket(length: int) -> tuple[int, int]:
    """The bucket of a length: from a power of two, but at least 1, up to below the next; 32 to 63, for example."""
    start = 1 << (length.bit_length() - 1)
    return start, 2 * start - 1


def bucket_label(bucket: tuple[int, int]) -> str:
    """What messages call a bucket: "32-63"."""
    return f"{bucket[0]}-{bucket[1]}"


def draw_samples(samples: Sequence[TokenSample], count: int) -> list[TokenSample]:
    """Draw `count` samples, or all if there are fewer, in a seeded random order.

    Samples are grouped by source, language and length bucket, and the groups take turns: a rare length or language is
    kept as long as it lasts, and the frequent ones share the rest.
    """
    random = np.random.default_rng(_SEED)
    order = random.permutation(len(samples))
    groups: dict[tuple[object, ...], list[int]] = {}
    for index in order.tolist():
        sample = samples[index]
        groups.setdefault((sample.group, length_bucket(len(sample.ids))), []).append(index)
    turns = [
        (turn, place, index)
        for place, key in enumerate(sorted(groups, key=str))
        for turn, index in enumerate(groups[key])
    ]
    drawn = sorted(index for _, _, index in sorted(turns)[:count])
    return [samples[drawn[position]] for position in random.permutation(len(drawn)).tolist()]
