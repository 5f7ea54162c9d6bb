"""What `make demo` prints of its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo import summary
from tests.networks import images
from tests.pipeline.quantizing import quantized
from trt_ptq.onnx_io.load import Model


def test_the_summary_has_every_precision_and_what_tuning_did(cnn: Model, tmp_path: Path) -> None:
    def accuracy(run: Any) -> dict[str, float]:
        (outputs,) = run({"x": images(8, seed=5)}).values()
        return {"character_accuracy": float(np.isfinite(outputs).mean())}

    report = quantized(cnn, tmp_path / "out", evaluate=accuracy).report
    text = "\n".join(summary(report, tmp_path / "out"))
    assert [line.split() for line in text.splitlines()[:2]] == [
        ["FP32", "FP16", "INT8"],
        ["wrong", "0.00%", "0.00%", "0.00%"],
    ]
    assert "plain INT8 lost 0.00% " in text
    assert "report.html" in text
