"""One row of the comparison: its model built, evaluated on the test data, its INT8 MACs counted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy.cases import CASES, Metrics
from benchmarks.accuracy.make import make_apart
from benchmarks.accuracy.share import share_of_macs_in_int8
from trt_ptq.errors import TrtPtqError
from trt_ptq.evaluation.metrics import UserMetric, metric_losses
from trt_ptq.evaluation.verdict import grade


@dataclass(frozen=True)
class Row:
    """`loss` is relative, of the worst metric against FP32; `failed` says why there are no figures.

    `seconds` and `samples` are those of quantizing; `note` is about how the model was made.
    """

    metrics: Metrics | None = None
    loss: float | None = None
    int8_fraction_of_macs: float | None = None
    seconds: float | None = None
    samples: int | None = None
    note: str = ""
    failed: str = ""
    commit: str = ""


def measure_float(name: str) -> Row:
    return Row(metrics=_evaluate(name, CASES[name].model()), loss=0.0, int8_fraction_of_macs=0.0)


def measure(name: str, row: str, reference: Row, limit: float) -> Row:
    """Row `row` of the model `name`, whose float row is `reference`; making it may take `limit` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        answer: dict[str, Any] = make_apart(name, row, path, limit)
        if "failed" in answer:
            return Row(failed=answer["failed"])
        try:
            metrics = _evaluate(name, path)
            loss = grade(metric_losses(reference.metrics or {}, metrics)).loss
        except TrtPtqError as error:
            return Row(failed=f"its model does not run: {error}")
        fraction, answer["note"] = _int8_fraction(name, path, answer["note"])
    return Row(metrics=metrics, loss=loss, int8_fraction_of_macs=fraction, **answer)


def _evaluate(name: str, path: Path) -> Metrics:
    return UserMetric(CASES[name].evaluate, name).evaluate(path)


def _int8_fraction(name: str, path: Path, note: str) -> tuple[float | None, str]:
    feeds = next(iter(CASES[name].calibration()))
    try:
        return share_of_macs_in_int8(path, {key: array.shape for key, array in feeds.items()}), note
    except TrtPtqError as error:
        return None, "; ".join(filter(None, (note, f"INT8 MACs not counted: {error}")))
