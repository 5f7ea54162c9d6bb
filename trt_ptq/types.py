"""What a source of calibration batches promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from trt_ptq.errors import UsageError

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


@dataclass(frozen=True)
class TensorSpec:
    """An input of the model. A dimension is a number, or the name ("?" if it has none) of an open one."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...] | None

    @property
    def is_dynamic(self) -> bool:
        """Whether a dimension is known to be open."""
        return self.shape is not None and not all(isinstance(axis, int) for axis in self.shape)

    def __str__(self) -> str:
        shape = "of any shape" if self.shape is None else f"[{', '.join(map(str, self.shape))}]"
        return f"{self.name}: {self.dtype} {shape}"


@dataclass(frozen=True)
class ShapeProfile:
    """The shapes that an engine accepts for one input, and the shape that it is optimized for.

    Raises:
        UsageError: the three shapes differ in rank, or MIN <= OPT <= MAX does not hold on every axis.
    """

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        ranks = {len(self.minimum), len(self.optimum), len(self.maximum)}
        sizes = zip(self.minimum, self.optimum, self.maximum, strict=False)
        if len(ranks) > 1 or any(not low <= optimum <= high for low, optimum, high in sizes):
            raise UsageError(f"shape profile {self}: needs one rank and MIN <= OPT <= MAX on every axis")

    @property
    def fixed(self) -> tuple[int, ...]:
        """The shape to give the network: the size where all three agree, -1 where the axis stays dynamic."""
        return tuple(low if low == high else -1 for low, high in zip(self.minimum, self.maximum, strict=True))

    def __str__(self) -> str:
        return ":".join("x".join(map(str, shape)) for shape in (self.minimum, self.optimum, self.maximum))


class ProgressCallback(Protocol):
    """Passes on what is worked through (batches, shards, layers), and shows progress."""

    def __call__(self, items: Iterable[T], description: str, total: int | None, /) -> Iterable[T]: ...


def no_progress(items: Iterable[T], _description: str, _total: int | None) -> Iterable[T]:
    """Passes items on without showing progress: the default for every `progress`."""
    return items


Tell = Callable[[str], None]


def untold(_text: str) -> None:
    """Progress that nobody wants to hear of."""
