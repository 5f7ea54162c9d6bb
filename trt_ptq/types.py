"""The types that every layer shares: arrays, batches and their sources, model inputs, shape profiles, progress."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from trt_ptq.errors import UsageError

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
T = TypeVar("T")
_SHAPE = re.compile(r"[1-9]\d*(x(0|[1-9]\d*))*")  # only the first axis, the samples, is never empty


@dataclass(frozen=True)
class Batch:
    """The inputs of one model call, by input name, and where they came from (for messages).

    Batches of one `group` have something in common, such as the length of texts.
    """

    feeds: Feeds
    origin: str
    group: str = ""


@runtime_checkable
class BatchSource(Protocol):
    """Yields the same batches in the same order in every pass.

    `total` is the number of batches if it is known in advance (for progress), else None.
    """

    @property
    def total(self) -> int | None: ...

    def __iter__(self) -> Iterator[Batch]: ...


@runtime_checkable
class IndexedSource(BatchSource, Protocol):
    """A source that reads any batch of `range(total)` without reading the others."""

    @property
    def total(self) -> int: ...

    def batch(self, index: int) -> Batch: ...


class SourceView:
    """Base of the sources that read their batches from another source, and are indexed if that source is."""

    source: BatchSource

    @property
    def is_indexed(self) -> bool:
        """Whether any batch can be read without reading the others."""
        return is_indexed(self.source)


def is_indexed(source: BatchSource) -> TypeGuard[IndexedSource]:
    """Whether any batch of `source` can be read without reading the others."""
    return source.is_indexed if isinstance(source, SourceView) else isinstance(source, IndexedSource)


def sample_count(feeds: Feeds) -> int:
    """The number of samples in a batch: the length of the first axis if all inputs agree on it, else 1."""
    lengths = {np.shape(array)[0] for array in feeds.values() if np.ndim(array) > 0}
    return lengths.pop() if len(lengths) == 1 else 1


def dtype_name(dtype: np.dtype[Any]) -> str:
    """How Python code writes a data type: numpy has no bool and object in some of its versions."""
    return {"b": "bool", "O": "object"}.get(dtype.kind, f"numpy.{dtype}")


def contiguous(feeds: Feeds) -> dict[str, Array]:
    """C-contiguous arrays, as C libraries read them. Unlike `numpy.ascontiguousarray`, keeps arrays without axes so."""
    return {name: np.asarray(array, order="C") for name, array in feeds.items()}


@dataclass(frozen=True)
class TensorSpec:
    """An input of the model. A dimension is a number, or the name of a dynamic one ("?" if it has no name)."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...]

    @property
    def is_dynamic(self) -> bool:
        """Whether the shape has a dynamic dimension."""
        return not all(isinstance(axis, int) for axis in self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"


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

    @classmethod
    def parse(cls, text: str) -> ShapeProfile:
        """Read a profile from "MIN:OPT:MAX", or from one fixed shape; a shape is written 8x3x224x224.

        Raises:
            UsageError: the text has another form, or MIN <= OPT <= MAX does not hold.
        """
        shapes = text.split(":")
        if len(shapes) not in (1, 3) or not all(_SHAPE.fullmatch(shape) for shape in shapes):
            raise UsageError(f"`shapes`: write MIN:OPT:MAX, such as 1x3x224x224:8x3x224x224:16x3x224x224, not {text!r}")
        parsed = [tuple(int(size) for size in shape.split("x")) for shape in shapes]
        return cls(parsed[0], parsed[len(parsed) // 2], parsed[-1])

    @property
    def fixed(self) -> tuple[int, ...]:
        """The shape to give the network: the size where all three agree, -1 where the axis stays dynamic."""
        return tuple(low if low == high else -1 for low, high in zip(self.minimum, self.maximum, strict=True))

    def __str__(self) -> str:
        return ":".join("x".join(map(str, shape)) for shape in (self.minimum, self.optimum, self.maximum))


class ProgressCallback(Protocol):
    """Yields the items (batches, shards, layers) unchanged, and reports progress meanwhile."""

    def __call__(self, items: Iterable[T], description: str, total: int | None, /) -> Iterable[T]: ...


def no_progress(items: Iterable[T], _description: str, _total: int | None) -> Iterable[T]:
    """Return the items without reporting progress: the default of every `progress`."""
    return items
