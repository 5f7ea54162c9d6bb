"""trt_ptq as the comparison runs it: what is not INT8 is FP32, as in the peers' models; no engine is built."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.accuracy.cases import CASES, Feeds
from benchmarks.speed.collecting import in_memory
from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.config import QuantizeJob
from trt_ptq.onnx_io.load import load_model
from trt_ptq.pipeline import quantize
from trt_ptq.report.schema import Report


def plain(name: str, batches: list[Feeds], result: Path) -> None:
    """INT8 wherever the plan puts it, by the range method that keeps outputs closest; nothing repaired or searched."""
    _quantize(name, batches, result, repair=False, search=False)


def within(max_drop: float, name: str, batches: list[Feeds], result: Path) -> str:
    """`quantize` told to lose at most `max_drop` of the metric on the validation data, which is not the test data."""
    report = _quantize(name, batches, result, evaluate=CASES[name].validation, eval_name=name, max_drop=max_drop)
    kept = [one.name for one in report.trials[3:] if one.decision == "kept"]
    return f"{', '.join(kept) or 'nothing changed'}; {report.verdict.loss:+.2%} on the validation data"


def _quantize(name: str, batches: list[Feeds], result: Path, **options: Any) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        job = QuantizeJob(
            model=load_model(CASES[name].model()),
            source=in_memory(batches),
            test=in_memory(batches[:1]),  # for fidelity, which is not looked at: all others calibrate
            data_name=name,
            method=AUTO_CANDIDATES[0],
            alternatives=AUTO_CANDIDATES[1:],
            out=Path(folder),
            backend="trt",
            high_precision="fp32",
            **options,
        )
        report = quantize(job).report
        (Path(folder) / "model.int8.onnx").rename(result)
    return report
