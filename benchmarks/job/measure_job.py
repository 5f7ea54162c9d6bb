"""Runs `quantize` on one case, and counts, times and weighs it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks.job.counting import CANDIDATE, FP16, FP32, INT8, CountedBatches, Metric, counting
from benchmarks.job.phases import phases_of_run
from benchmarks.speed.models import Feeds
from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.config import QuantizeConfig
from trt_ptq.pipeline import quantize
from trt_ptq.report.schema import Report

Run = Callable[[Feeds], Feeds]


@dataclass(frozen=True)
class Text:
    """The text of a language model: to calibrate with and to evaluate on, and its Hugging Face tokenizer."""

    calibration: Sequence[str]
    test: Sequence[str]
    tokenizer: Any


@dataclass(frozen=True)
class Job:
    """What `quantize` is given.

    Attributes:
        model: the ONNX file.
        batches: all its data; of a language model as much text as it calibrates with and evaluates on.
        evaluate: the metric `evaluate(run, split)`, if there is one.
        config: fields of `QuantizeConfig`.
        text: of a language model, what it is given instead of `batches`.
    """

    model: Path
    batches: Sequence[Feeds]
    evaluate: Metric | None = None
    config: dict[str, Any] = field(default_factory=dict)
    text: Text | None = None


def measure_job(job: Job) -> dict[str, Any]:
    """The figures of one run without engines, as JSON, beside those of `plain_inference`, which is called P."""
    plain = plain_inference(job)
    data = CountedBatches(job.batches)
    with tempfile.TemporaryDirectory() as out, counting() as counts, phases_of_run() as phases:
        start = Seconds.now()
        result = quantize(
            job.model,
            data if job.text is None else job.text.calibration,
            test_data=job.text and job.text.test,
            tokenizer=job.text and job.text.tokenizer,
            evaluate=job.evaluate and counts.metric(job.evaluate),
            output_dir=out,
            config=QuantizeConfig(backend="none", **job.config),
        )
        whole = Seconds.now() - start
    return {
        "plain_seconds": plain.elapsed,
        "plain_cpu_seconds": plain.of_all_cores,
        "seconds": whole.elapsed,
        "cpu_seconds": whole.of_all_cores,
        "batches": len(job.batches),
        "batches_produced": data.produced.total(),
        "most_often_produced": max(data.produced.values(), default=0),
        "fp32_samples": len(counts.fp32_outputs),
        "candidate_samples": counts.candidate_runs.total(),
        "most_often_computed_fp32": max(counts.fp32_outputs.values()),
        "fp32_samples_computed_again": sum(runs > 1 for runs in counts.fp32_outputs.values()),
        "runs": dict(counts.runs),
        "metric_runs": dict(counts.metric_runs),
        "metric_evaluations": {kind: counts.metric_evaluations[kind] for kind in (FP32, CANDIDATE, FP16, INT8)},
        "models_built": counts.built.total(),
        "distinct_models": len(counts.built),
        "most_often_a_candidate_ran_on_a_sample": max(counts.candidate_runs.values(), default=0),
        "phase_seconds": phases.seconds,
        "phase_peak_bytes": phases.peak_bytes,
        **_result(result.report),
    }


@dataclass(frozen=True)
class Seconds:
    """A time: `elapsed`, and `of_all_cores` for this process, which depends less on what else the machine does."""

    elapsed: float
    of_all_cores: float

    @classmethod
    def now(cls) -> Seconds:
        """The time of now, for differences."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.elapsed + other.elapsed, self.of_all_cores + other.of_all_cores)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.elapsed - other.elapsed, self.of_all_cores - other.of_all_cores)


def plain_inference(job: Job) -> Seconds:
    """P: FP32 on ONNX Runtime, on all usable cores, once over the data and once over each split of the metric."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    session = ort.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    seconds = Seconds(0, 0)

    def run(feeds: Feeds) -> Feeds:
        nonlocal seconds
        start = Seconds.now()
        outputs = session.run(None, dict(feeds))
        seconds += Seconds.now() - start
        return dict(zip(names, outputs, strict=True))

    run(job.batches[0])  # the first one allocates
    seconds = Seconds(0, 0)
    for feeds in job.batches:
        run(feeds)
    if job.evaluate is not None:
        job.evaluate(run, "select")
        job.evaluate(run, "test")
    return seconds


def _result(report: Report) -> dict[str, Any]:
    fraction = report.int8_fraction_of_macs
    return {
        "loss": report.verdict.loss,
        "passed": report.verdict.passed,
        "int8_fraction_of_macs": fraction,
        "trials": [f"{trial.name}: {trial.decision}" for trial in report.trials],
    }
