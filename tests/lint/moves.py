"""Operators that only move data, each on an image [1, 16, 8, 8]; a convolution can read the result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.lint.sketch import Sketch


def _squeezed(sketch: Sketch, value: str) -> str:
    first = sketch.constant([0], np.int64)
    return sketch.node("Unsqueeze", sketch.node("Squeeze", value, first), first)


def _flattened(sketch: Sketch, value: str) -> str:
    return sketch.node("Reshape", sketch.node("Flatten", value), sketch.constant([1, 16, 8, 8], np.int64))


def _sliced(sketch: Sketch, value: str) -> str:
    return sketch.node("Slice", value, *(sketch.constant([bound], np.int64) for bound in (0, 4, 2)))


def _split(sketch: Sketch, value: str) -> str:
    return sketch.node("Split", value, sketch.constant([8], np.int64), axis=3)


def _from_space(sketch: Sketch, value: str) -> str:
    return sketch.node("DepthToSpace", sketch.node("SpaceToDepth", value, blocksize=2), blocksize=2)


MOVES: dict[str, Callable[[Sketch, str], str]] = {
    "Identity": lambda s, value: s.node("Identity", value),
    "Dropout": lambda s, value: s.node("Dropout", value),
    "Transpose": lambda s, value: s.node("Transpose", value, perm=[0, 1, 3, 2]),
    "Reshape": lambda s, value: s.node("Reshape", value, s.constant([1, 16, 4, 16], np.int64)),
    "Flatten": _flattened,
    "Squeeze": _squeezed,
    "Slice": _sliced,
    "Split": _split,
    "Gather": lambda s, value: s.node("Gather", value, s.constant([0, 1, 2], np.int64), axis=2),
    "Expand": lambda s, value: s.node("Expand", value, s.constant([2, 16, 8, 8], np.int64)),
    "Pad": lambda s, value: s.node("Pad", value, s.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)),
    "SpaceToDepth": _from_space,
    "MaxPool": lambda s, value: s.node("MaxPool", value, kernel_shape=[2, 2]),
    "Concat": lambda s, value: s.node("Concat", value, value, axis=2),
}
