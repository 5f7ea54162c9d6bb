"""What a source of calibration batches promises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """One call of the model: arrays by input name, and where they came from, for messages."""

    feeds: Feeds
    origin: str


class BatchSource(Protocol):
    """Gives the same batches in the same order each time it is iterated.

    `total` is the number of batches where it is known beforehand (for progress), else None.
    """

    @property
    def total(self) -> int | None: ...

    def __iter__(self) -> Iterator[Batch]: ...


def sample_count(feeds: Feeds) -> int:
    """Samples in a batch: the length of the first axis that the inputs share, else 1."""
    lengths = {np.shape(array)[0] for array in feeds.values() if np.ndim(array) > 0}
    return lengths.pop() if len(lengths) == 1 else 1


class Track(Protocol):
    """Passes on what is worked through (batches, shards, layers), and shows progress."""

    def __call__(self, items: Iterable[T], description: str, total: int | None, /) -> Iterable[T]: ...


def untracked(items: Iterable[T], _description: str, _total: int | None) -> Iterable[T]:
    """Passes items on without showing progress: the default for every `track`."""
    return items
