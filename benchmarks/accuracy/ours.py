"""trt_ptq as the comparison runs it: what is not INT8 is FP32, as in the peers' models; no engine is built."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.accuracy.cases import CASES, Feeds
from benchmarks.speed.collecting import in_memory
from trt_ptq.config import QuantizeConfig
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.pipeline import quantize
from trt_ptq.report.schema import Report


def plain(name: str, batches: list[Feeds], result: Path) -> None:
    """Quantize every quantizable layer by the range method with the smallest output error; no tuning."""
    _quantize(name, batches, result, techniques=(), search=False)


def within(max_drop: float, name: str, batches: list[Feeds], result: Path) -> str:
    """Quantize with at most `max_drop` loss of the metric on validation data, which is separate from the test data."""
    report = _quantize(name, batches, result, evaluate=CASES[name].validation, max_drop=max_drop)
    accepted = [trial.name for trial in report.trials if trial.decision in ("applied", "accepted")]
    return f"{', '.join(accepted) or 'nothing changed'}; {report.verdict.loss:+.2%} on the validation data"


def _quantize(
    name: str, batches: list[Feeds], result: Path, evaluate: Evaluate | None = None, **options: Any
) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        report = quantize(
            CASES[name].model(),
            in_memory(batches),
            evaluate=evaluate,
            test_data=in_memory(batches[:1]),  # for fidelity, which is not looked at: all others calibrate
            output_dir=folder,
            config=QuantizeConfig(backend="none", high_precision="fp32", **options),
        ).report
        (Path(folder) / "model.int8.onnx").rename(result)
    return report
