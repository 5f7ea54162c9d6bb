"""trt-ptq calibrate"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_ptq.calibrators.files import check_writable
from trt_ptq.calibrators.statistics.store import save_statistics
from trt_ptq.cli import console, options
from trt_ptq.cli.parse import parse_nonfinite, parse_size
from trt_ptq.collect.collector import collect
from trt_ptq.collect.passes import plan_passes
from trt_ptq.data.audit import AuditedSource
from trt_ptq.data.checked import CheckedSource
from trt_ptq.data.open import open_source
from trt_ptq.graph.model import load_model
from trt_ptq.graph.taps import choose_taps


def calibrate(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Statistics file to write.")] = Path("stats.safetensors"),
    batch_size: options.BatchSize = 8,
    preprocess: options.Preprocess = None,
    tensors: options.Tensors = ["fused"],
    attention: options.Attention = False,
    nonfinite: options.Nonfinite = "refuse",
    memory_limit: options.MemoryLimit = None,
    json: options.Json = False,
) -> None:
    """Run the model over the data once and keep the statistics of its tensors.

    Every range method works from the statistics alone; statistics of several shards of data merge exactly.

    Example: trt-ptq calibrate model.onnx --data calibration/ -o stats.safetensors
    """
    policy = parse_nonfinite(nonfinite)
    loaded = load_model(model)
    check_writable(out, model, *loaded.external.files, Path(data))
    taps = choose_taps(loaded, tensors, attention)
    source = open_source(data, loaded.inputs, batch_size, preprocess)
    audited = AuditedSource(CheckedSource(source, loaded.inputs, allow_nonfinite=policy == "skip"))
    passes = plan_passes(loaded, taps, audited, parse_size(memory_limit)) if memory_limit else (taps.tensors,)
    statistics = collect(loaded, audited, taps, policy, console.track, passes)
    save_statistics(statistics, out)
    skipped = {name: tensor.nonfinite for name, tensor in statistics.tensors.items() if tensor.nonfinite}
    findings = audited.findings() + [
        f"tensor {name!r}: {count} NaN or infinite values skipped" for name, count in skipped.items()
    ]
    for finding in findings:
        console.warn(finding)
    if json:
        console.print_json(
            {
                "statistics": str(out),
                "tensors": len(statistics.tensors),
                "data": asdict(statistics.data),
                "passes": len(passes),
                "warnings": findings,
            }
        )
    else:
        console.say(
            f"{out}: {len(statistics.tensors)} tensors over {statistics.data.samples} samples"
            + (f", in {len(passes)} passes" if memory_limit else "")
        )
