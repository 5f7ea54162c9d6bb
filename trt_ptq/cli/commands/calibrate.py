"""trt-ptq calibrate"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq._internal.files import check_writable
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.convergence import Convergence
from trt_ptq.calibration.devices import open_device
from trt_ptq.calibration.memory_planner import plan_passes
from trt_ptq.calibration.ray.ray_backend import collect_on_ray
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import range_method
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import save_statistics
from trt_ptq.cli import console, options
from trt_ptq.cli.parse import parse_memory_limit, parse_nonfinite, parse_tolerance
from trt_ptq.data.audit import Audit
from trt_ptq.data.observation import observe
from trt_ptq.data.open import open_data
from trt_ptq.data.shard import ShardedSource, parse_shard
from trt_ptq.data.user_function import read_from
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.provenance import join_shards


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
    device: options.Device = "cpu",
    checkpoint: Annotated[
        Optional[Path],
        typer.Option(
            help="Keep what was measured in this file, every two minutes: the same command goes on from there when it "
            "was cut off, with the same result to the byte. Removed at the end.",
            show_default=False,
        ),
    ] = None,
    until_stable: options.UntilStable = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="Whose ranges --until-stable watches: percentile unless given.", show_default=False),
    ] = None,
    percentile: options.PercentileValue = None,
    shard: Annotated[
        Optional[str],
        typer.Option(
            help="INDEX/COUNT, counted from 0 (0/8 to 7/8): take every COUNT-th batch only, so that COUNT machines "
            "share the work; `trt-ptq merge` puts their statistics together.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        Optional[str],
        typer.Option(
            metavar="local|auto|ADDRESS",
            help="Share the work among the CPUs of a Ray cluster: one started on this machine (local), the one that "
            'this machine belongs to (auto), or HOST:PORT. Needs pip install "trt-ptq\\[ray]".',
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run the model over the data once and keep the statistics of its tensors.

    Every range method works from the statistics alone; statistics of several shards of data merge exactly.
    How many samples are enough: docs/how-many-samples.md.

    Example: trt-ptq calibrate model.onnx --data calibration/ -o stats.safetensors
    """
    policy = parse_nonfinite(nonfinite)
    if ray is not None:
        _check_with_ray(
            shard=shard, memory_limit=memory_limit, device=device, checkpoint=checkpoint, until_stable=until_stable
        )
    if shard is not None and until_stable is not None:
        raise UsageError("--until-stable is for all samples, and a shard is a part of them: leave it out, or --shard")
    convergence = _convergence(until_stable, method, percentile)
    place = open_device(device)
    limit = parse_memory_limit(memory_limit, device)
    loaded = load_model(model)
    inputs = (model, *loaded.external.files, *read_from(data, preprocess))
    check_writable(out, *inputs)
    if checkpoint is not None:
        if checkpoint.resolve() == out.resolve():
            raise UsageError(f"--checkpoint and --out are one file, {out}: name two")
        check_writable(checkpoint, *inputs)
    kept = None if checkpoint is None else Checkpoint(checkpoint, memory_limit=limit)
    calibration_tensors = select_calibration_tensors(loaded, tensors, attention)
    passes: tuple[tuple[str, ...], ...] = (calibration_tensors.tensors,)
    source = open_data(data, loaded.inputs, batch_size=batch_size, preprocess=preprocess)
    if ray is not None:
        result = collect_on_ray(
            loaded, source, calibration_tensors, policy, ray, partial(console.progress, unit="shards")
        )
        statistics, findings = result.statistics, result.audit.findings() + result.incidents
    else:
        sharded = None if shard is None else ShardedSource(source, *parse_shard(shard))
        audit = Audit()
        valid = ValidatedSource(sharded or source, loaded.inputs, allow_nonfinite=policy == "skip")
        audited = observe(valid, audit)
        if limit is not None:
            passes = plan_passes(loaded, calibration_tensors, audited, limit)
        with _keeping(kept):
            statistics = collect_statistics(
                loaded,
                audited,
                calibration_tensors,
                policy,
                console.progress,
                passes,
                device=place,
                checkpoint=kept,
                convergence=convergence,
            )
        if sharded is not None:
            statistics = replace(statistics, shards=join_shards((), [sharded.shard]))
        findings = audit.findings(is_shard=shard is not None)
    save_statistics(statistics, out)
    if kept is not None:
        kept.remove()
    resumed = 0
    if kept is not None and kept.found is not None:
        passes, resumed = kept.found.passes, kept.found.statistics.data.samples
    stability = convergence.stability() if convergence else None
    findings += _skipped(statistics) + ([str(stability)] if stability and not stability.stable else [])
    for finding in findings:
        console.warn(finding)
    if json:
        console.print_json(
            {
                "statistics": str(out),
                "tensors": len(statistics.tensors),
                "data": asdict(statistics.data),
                "passes": len(passes),
                "resumed_samples": resumed,
                "stability": asdict(stability) if stability else None,
                "warnings": findings,
            }
        )
    else:
        console.say(
            f"{out}: {len(statistics.tensors)} tensors over {statistics.data.samples} samples"
            + (f", in {len(passes)} passes" if len(passes) > 1 else "")
            + (f", {resumed} of them from {checkpoint}" if resumed else "")
        )
        if stability and stability.stable:
            console.say(str(stability))


@contextmanager
def _keeping(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Say, when the block is interrupted, that `checkpoint` has what was measured."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint is None or not checkpoint.path.exists():
            raise
        raise console.Interrupted(
            f"interrupted: what was measured is in {checkpoint.path}, and the same command goes on from there"
        ) from None


def _skipped(statistics: Statistics) -> list[str]:
    skipped = {name: tensor.nonfinite for name, tensor in statistics.tensors.items() if tensor.nonfinite}
    return [f"tensor {name!r}: {count} NaN or infinite values skipped" for name, count in skipped.items()]


def _check_with_ray(**others: object) -> None:
    given = [name for name, value in others.items() if value not in (None, "cpu")]
    if given:
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option} is for a calibration by one process: leave it out, or --ray")


def _convergence(until_stable: str | None, method: str | None, percentile: float | None) -> Convergence | None:
    if until_stable is not None:
        return Convergence([range_method(method or "percentile", percentile)], parse_tolerance(until_stable))
    if method is not None or percentile is not None:
        raise UsageError(
            "--method says whose ranges --until-stable watches; without that, leave it out: every method works from "
            "the same statistics (trt-ptq table --method)"
        )
    return None
