"""The figures of jobs as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.results_file import FAILED, Figures

_HEADINGS = (
    *("job", "P", "quantize", "of all cores", "batches", "most often produced", "FP32 runs on a sample"),
    *("INT8 models built / distinct", "metric on candidates", "peak memory", "loss, MACs in INT8"),
)


def job_table(figures: Mapping[str, Figures]) -> Iterator[str]:
    """The table's lines: one for each job that was measured."""
    yield "| " + " | ".join(_HEADINGS) + " |"
    yield "|---|" + "---|" * (len(_HEADINGS) - 1)
    for name, job in figures.items():
        if FAILED not in job:
            yield "| " + " | ".join([name, *_cells(job)]) + " |"


def _cells(job: Figures) -> Iterator[str]:
    yield f"{job['plain_seconds']:.1f} s"
    yield f"{job['seconds']:.0f} s, {job['seconds'] / job['plain_seconds']:.1f} P"
    yield f"{job['cpu_seconds']:.0f} s, {job['cpu_seconds'] / job['plain_cpu_seconds']:.1f} P"
    yield str(job["batches"])
    yield str(job["most_often_produced"])
    yield str(job["most_often_computed_fp32"])
    yield f"{job['models_built']} / {job['distinct_models']}"
    yield str(job["metric_evaluations"]["candidate"])
    yield f"{max(job['phase_peak_bytes'].values()) / 1e9:.1f} GB"
    fraction = job["int8_fraction_of_macs"]
    yield f"{job['loss']:.2%}" + ("" if fraction is None else f", {fraction:.0%}")


def phase_table(job: Figures) -> Iterator[str]:
    """Seconds and peak memory of one job by phase."""
    yield "| phase | seconds | peak memory |"
    yield "|---|---|---|"
    for phase, seconds in job["phase_seconds"].items():
        yield f"| {phase} | {seconds:.1f} | {job['phase_peak_bytes'][phase] / 1e6:.0f} MB |"
