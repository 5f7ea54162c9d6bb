"""One row of the comparison: its model built, evaluated on the test data, its INT8 MACs counted."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy.cases import CASES, Metrics
from benchmarks.accuracy.makers import MAKERS
from benchmarks.accuracy.share import share_of_macs_in_int8
from benchmarks.results_file import Figures
from trt_ptq.errors import TrtPtqError
from trt_ptq.evaluation.metrics import UserMetric, metric_losses
from trt_ptq.evaluation.verdict import grade

FP32 = "fp32"
MEMORY_BYTES = 14 << 30  # of address space


@dataclass(frozen=True)
class Row:
    """`loss` is relative, of the worst metric against FP32.

    `seconds` and `samples` are those of quantizing; `note` is about how the model was made.
    """

    metrics: Metrics
    loss: float = 0.0
    int8_fraction_of_macs: float | None = 0.0
    seconds: float | None = None
    samples: int | None = None
    note: str = ""


def measure_float(name: str) -> Row:
    """The row of the float model `name`."""
    return Row(metrics=_evaluate(name, CASES[name].model()))


def measure(name: str, maker: str, rows: Mapping[str, Figures]) -> Row:
    """The row of the model `name` as `maker` quantizes it; its float row is in `rows`.

    Raises:
        TrtPtqError: there is no float row.
        Exception: whatever a peer raises.
    """
    metrics = rows.get(f"{name}/{FP32}", {}).get("metrics")
    if metrics is None:
        raise TrtPtqError(f"{name}: FP32 was not measured")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        made = MAKERS[maker](name, path)
        evaluated = _evaluate(name, path)
        fraction, note = _int8_fraction(name, path, made.note)
    return Row(
        metrics=evaluated,
        loss=grade(metric_losses(metrics, evaluated)).loss,
        int8_fraction_of_macs=fraction,
        seconds=made.seconds,
        samples=made.samples,
        note=note,
    )


def _evaluate(name: str, path: Path) -> Metrics:
    evaluate: Any = CASES[name].evaluate
    return UserMetric(evaluate, name).evaluate(path)


def _int8_fraction(name: str, path: Path, note: str) -> tuple[float | None, str]:
    feeds = next(iter(CASES[name].calibration()))
    try:
        return share_of_macs_in_int8(path, {key: array.shape for key, array in feeds.items()}), note
    except TrtPtqError as error:
        return None, "; ".join(filter(None, (note, f"INT8 MACs not counted: {error}")))
