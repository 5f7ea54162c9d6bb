"""The jobs that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks import demo
from benchmarks.job.counting import as_arrays
from benchmarks.job.measure_job import Job, measure_job
from benchmarks.models import magika, minilm, recogniser, smollm2
from benchmarks.results_file import Figures, RowSpec
from benchmarks.speed import models

_IMAGES, _BATCH = 256, 8


def plain_recogniser() -> Job:
    return Job(recogniser.model(), as_arrays(recogniser.calibration()))


def recogniser_by_metric() -> Job:
    """A search for layers to exclude, by the metric of `make demo`."""
    return Job(recogniser.model(), as_arrays(recogniser.calibration()), demo.accuracy)


def demo_job() -> Job:
    """The same with the data of `make demo`, and without techniques, as there."""
    return Job(recogniser.model(), as_arrays(demo.calibration()), demo.accuracy, {"techniques": ()})


def plain_minilm() -> Job:
    return Job(minilm.model(), as_arrays(minilm.calibration()))


def plain_magika() -> Job:
    return Job(magika.model(), as_arrays(magika.calibration()))


def plain_resnet50() -> Job:
    return Job(models.resnet50(), [models.images(_BATCH, seed) for seed in range(_IMAGES // _BATCH)])


def smoothed_smollm2() -> Job:
    return Job(
        smollm2.model(), as_arrays(smollm2.calibration(samples=64)), config={"techniques": ("smoothquant", "auto")}
    )


JOBS: dict[str, Callable[[], Job]] = {
    "magika": plain_magika,
    "minilm": plain_minilm,
    "recogniser": plain_recogniser,
    "recogniser-by-metric": recogniser_by_metric,
    "demo": demo_job,
    "resnet50": plain_resnet50,
    "smollm2-smoothquant": smoothed_smollm2,
}


def job_rows() -> list[RowSpec]:
    """All rows."""
    return [RowSpec("job", name, partial(_figures, job)) for name, job in JOBS.items()]


def _figures(job: Callable[[], Job], _rows: Mapping[str, Figures]) -> Figures:
    return measure_job(job())
