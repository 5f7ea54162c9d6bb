"""Which range method keeps the outputs of the INT8 model closest to those of the float model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir

from trt_ptq.accuracy.judge import Judge
from trt_ptq.calibrators.batches import BatchSource, Track
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.data.split import FewBatches

BATCHES = 8  # to compare on: on five real models their order was that of all held-out data


def rank_methods(
    methods: Sequence[RangeMethod],
    make: Callable[[RangeMethod], ir.Model],
    reference: Path,
    calibration: BatchSource,
    track: Track,
) -> dict[str, float]:
    """The loss of fidelity to `reference` by method, least first; of equal ones that which comes first in `methods`.

    A metric is not asked: where methods differ by a few samples of it, it tells luck, and the outputs do not.

    Raises:
        DataError, ModelError: see `Judge.judge`.
    """
    judge = Judge(reference, FewBatches(calibration, BATCHES))
    tried = track(methods, "Comparing range methods", len(methods))
    losses = {method.name: judge.judge(make(method)).loss for method in tried}
    return dict(sorted(losses.items(), key=lambda one: one[1]))
