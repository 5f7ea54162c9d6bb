"""The jobs that are measured.

A name that ends in "-plain" is a job with nothing to mend: one that tries no techniques and excludes no layers, so that
what is left is the calibration, the selection of the range method, and the comparison of INT8 and FP16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from benchmarks import demo
from benchmarks.job.counting import as_arrays
from benchmarks.job.measure_job import Job, Text, measure_job
from benchmarks.models import magika, minilm, recogniser, smollm2_135m
from benchmarks.results_file import Figures, RowSpec
from benchmarks.speed import models

_IMAGES, _BATCH = 256, 8
_TEXTS = 64


def without_search(job: Callable[[], Job]) -> Job:
    return replace(job(), config={"techniques": (), "search": False})


def recogniser_without_metric() -> Job:
    return Job(recogniser.model(), as_arrays(recogniser.calibration()))


def recogniser_by_metric() -> Job:
    """A search for layers to exclude, by the metric of `make demo`."""
    return Job(recogniser.model(), as_arrays(recogniser.calibration()), demo.accuracy)


def demo_job() -> Job:
    """The same with the data of `make demo`, and without techniques, as there."""
    return Job(recogniser.model(), as_arrays(demo.calibration()), demo.accuracy, {"techniques": ()})


def minilm_without_metric() -> Job:
    return Job(minilm.model(), as_arrays(minilm.calibration()))


def magika_without_metric() -> Job:
    return Job(magika.model(), as_arrays(magika.calibration()))


def resnet50_without_metric() -> Job:
    return Job(models.resnet50(), [models.images(_BATCH, seed) for seed in range(_IMAGES // _BATCH)])


def smollm2_with_text() -> Job:
    """W8A8 of 64 texts of 256 tokens, judged by perplexity on others: with 32 to select, and 64 for the verdict."""
    windows = smollm2_135m.decoder_windows(_TEXTS + 32 + 64)
    text = Text(smollm2_135m.texts("calibration"), smollm2_135m.texts("held out"), smollm2_135m.tokenizer())
    return Job(
        smollm2_135m.decoder(), windows, config={"samples": _TEXTS, "max_length": smollm2_135m.LENGTH}, text=text
    )


JOBS: dict[str, Callable[[], Job]] = {
    "magika": magika_without_metric,
    "minilm-plain": partial(without_search, minilm_without_metric),
    "recogniser-plain": partial(without_search, recogniser_without_metric),
    "resnet50-plain": partial(without_search, resnet50_without_metric),
    "minilm": minilm_without_metric,
    "recogniser": recogniser_without_metric,
    "resnet50": resnet50_without_metric,
    "recogniser-by-metric": recogniser_by_metric,
    "demo": demo_job,
    "smollm2": smollm2_with_text,
}


def job_rows() -> list[RowSpec]:
    """All rows."""
    return [RowSpec("job", name, partial(_figures, job)) for name, job in JOBS.items()]


def _figures(job: Callable[[], Job], _rows: Mapping[str, Figures]) -> Figures:
    return measure_job(job())
