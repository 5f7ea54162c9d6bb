"""Model inputs, and what tests ask of sources of batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trt_ptq.types import Batch, BatchSource, TensorSpec

X = TensorSpec("x", np.dtype(np.float32), ("n", 4))
Y = TensorSpec("y", np.dtype(np.int64), ("n",))
IMAGE = TensorSpec("image", np.dtype(np.float32), ("n", 3, 2, 2))


@dataclass(frozen=True)
class Stream:
    """`count` batches of one sample, numbered, that can only be read one after the other."""

    count: int
    total: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        return (Batch({"x": np.full((1, 4), index, np.float32)}, f"batch {index}") for index in range(self.count))


@dataclass(frozen=True)
class Indexed:
    """The same batches, of which any can be read; `read` lists the numbers of those that were."""

    total: int
    read: list[int] = field(default_factory=list)

    def batch(self, index: int) -> Batch:
        self.read.append(index)
        return Batch({"x": np.full((1, 4), index, np.float32)}, f"batch {index}")

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))


def rows(count: int) -> npt.NDArray[np.float32]:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


def shapes(source: BatchSource) -> list[dict[str, tuple[int, ...]]]:
    return [{name: array.shape for name, array in batch.feeds.items()} for batch in source]


def origins(source: BatchSource) -> list[str]:
    return [batch.origin for batch in source]


def numbers(source: BatchSource) -> list[int]:
    """The numbers of the batches of a `Stream`."""
    return [int(batch.feeds["x"][0, 0]) for batch in source]


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)
