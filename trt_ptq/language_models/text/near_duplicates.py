"""Drops texts that are nearly the same as an earlier one, which would count twice in every statistic.

Source: Broder, "On the resemblance and containment of documents", 1997 (MinHash), as implemented by datasketch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.language_models.text.samples import TokenSample

_SIMILARITY = 0.8  # Jaccard similarity of the sets of n-grams; the usual threshold for web text
_NGRAM = 3  # tokens
_PERMUTATIONS = 64


def without_near_duplicates(samples: Sequence[TokenSample]) -> list[TokenSample]:
    """The samples without those whose token trigrams resemble an earlier one: Jaccard similarity of 0.8 or more.

    The similarity is estimated by MinHash with 64 permutations; its standard error is 0.05 at 0.8.

    Raises:
        MissingPackageError: datasketch is not installed.
    """
    datasketch = require("datasketch", extra="llm")
    index = datasketch.MinHashLSH(threshold=_SIMILARITY, num_perm=_PERMUTATIONS)
    sketches: dict[int, Any] = {}
    kept = []
    for number, sample in enumerate(samples):
        sketch = datasketch.MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch(sorted(sample.ngrams(_NGRAM)))
        if any(sketches[other].jaccard(sketch) >= _SIMILARITY for other in index.query(sketch)):
            continue
        index.insert(number, sketch)
        sketches[number] = sketch
        kept.append(sample)
    return kept
