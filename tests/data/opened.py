"""Inputs, and what the tests of sources ask of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trt_ptq.types import BatchSource, TensorSpec

X = TensorSpec("x", np.dtype(np.float32), ("n", 4))
Y = TensorSpec("y", np.dtype(np.int64), ("n",))
IMAGE = TensorSpec("image", np.dtype(np.float32), ("n", 3, 2, 2))


def rows(count: int) -> npt.NDArray[np.float32]:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


def shapes(source: BatchSource) -> list[dict[str, tuple[int, ...]]]:
    return [{name: array.shape for name, array in batch.feeds.items()} for batch in source]


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)
