"""Shape profiles from the shapes that were seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trt_ptq.data.observation import observe
from trt_ptq.data.shape_profiles import ShapeObserver, profiles_from_shapes
from trt_ptq.types import Batch, ShapeProfile, TensorSpec

FLOAT = np.dtype(np.float32)


@dataclass(frozen=True)
class Widths:
    """A batch of two images for each width."""

    widths: tuple[int, ...]

    @property
    def total(self) -> int | None:
        return len(self.widths)

    def __iter__(self) -> Iterator[Batch]:
        for width in self.widths:
            yield Batch({"x": np.zeros((2, 3, 48, width), np.float32), "fixed": np.zeros((4,), np.float32)}, "")


def test_every_shape_is_counted_while_batches_pass() -> None:
    shapes = ShapeObserver()
    assert len(list(observe(Widths((64, 32, 64)), shapes))) == 3
    assert shapes.seen == {"x": Counter({(2, 3, 48, 64): 2, (2, 3, 48, 32): 1}), "fixed": Counter({(4,): 3})}


def test_a_profile_spans_what_was_seen_and_is_tuned_for_the_usual_shape() -> None:
    shapes = ShapeObserver()
    list(observe(Widths((64, 32, 64, 128)), shapes))
    inputs = (TensorSpec("x", FLOAT, ("n", 3, "?", "w")), TensorSpec("fixed", FLOAT, (4,)))
    assert profiles_from_shapes(shapes.seen, inputs) == {
        "x": ShapeProfile(minimum=(1, 3, 48, 32), optimum=(2, 3, 48, 64), maximum=(2, 3, 48, 128))
    }


def test_a_fixed_batch_stays_fixed() -> None:
    inputs = (TensorSpec("x", FLOAT, (2, 3, 48, "w")),)
    profile = profiles_from_shapes({"x": Counter({(2, 3, 48, 32): 1})}, inputs)["x"]
    assert profile.minimum == profile.maximum == (2, 3, 48, 32)


def test_scalars_get_no_profile() -> None:
    inputs = (TensorSpec("scalar", FLOAT, ()),)
    assert profiles_from_shapes({"scalar": Counter({(): 1})}, inputs) == {}
