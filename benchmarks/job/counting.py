"""Counts that do not depend on the machine: batches that are produced, models that are loaded, and their runs."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime as ort

from benchmarks.speed.models import Feeds
from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.provenance import sample_hashes
from trt_ptq.types import Batch

FP32, CANDIDATE, FP16, INT8, MEASURING, CHECKING = "FP32", "candidate", "FP16", "INT8", "measuring", "checking"
_KINDS = {"candidate.onnx": CANDIDATE, "model.fp16.onnx": FP16, "model.int8.onnx": INT8}

Metric = Callable[..., dict[str, float]]


@dataclass
class CountedBatches:
    """Data as a user's loader gives it: a function that yields batches anew in each pass."""

    batches: Sequence[Feeds]
    produced: Counter[int] = field(default_factory=Counter)  # by number of the batch

    def __call__(self) -> Iterator[Feeds]:
        for number, feeds in enumerate(self.batches):
            self.produced[number] += 1
            yield feeds


@dataclass
class Counts:
    """What ONNX Runtime did.

    Attributes:
        runs: batches that models of each kind ran on, outside the metric. "measuring" are models with further outputs:
            calibration, ranking and the like; "checking" are those that loading compares.
        metric_runs: the same inside the metric.
        metric_evaluations: how often the metric was computed, by kind of model.
        built: how often an INT8 model was built, by its recipe.
        candidate_runs: how often a candidate ran on a sample outside the metric, by file and values of the sample.
        fp32_outputs: how often FP32 computed its outputs outside the metric, by the values of the sample.
    """

    runs: Counter[str] = field(default_factory=Counter)
    metric_runs: Counter[str] = field(default_factory=Counter)
    metric_evaluations: Counter[str] = field(default_factory=Counter)
    built: Counter[str] = field(default_factory=Counter)
    candidate_runs: Counter[tuple[str, int]] = field(default_factory=Counter)
    fp32_outputs: Counter[int] = field(default_factory=Counter)
    in_metric: bool = False

    def metric(self, function: Metric) -> Metric:
        """`function`, a metric that takes a split, counted."""

        def counted(run: Callable[[Feeds], Feeds], split: str) -> dict[str, float]:
            before = Counter(self.metric_runs)
            self.in_metric = True
            try:
                return function(run, split)
            finally:
                self.in_metric = False
                self.metric_evaluations.update((self.metric_runs - before).keys())

        return counted

    def add_run(self, kind: str, file: str, feeds: Feeds) -> None:
        """Count a run of the model in `file`, given by its hash, on one batch."""
        (self.metric_runs if self.in_metric else self.runs)[kind] += 1
        if self.in_metric or kind not in (FP32, CANDIDATE):
            return
        samples = sample_hashes(feeds)
        if kind == FP32:
            self.fp32_outputs.update(samples)
        else:
            self.candidate_runs.update((file, sample) for sample in samples)


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what ONNX Runtime does meanwhile, in place of its `InferenceSession` by a subclass; and models built."""
    counts = Counts()

    class CountingSession(ort.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: str | bytes, options: ort.SessionOptions, **arguments: Any) -> None:
            super().__init__(model, options, **arguments)
            self.kind = _kind(model, options)
            self.file = _file_hash(Path(str(model))) if self.kind == CANDIDATE else ""

        def run(self, names: Any, feeds: Feeds, *arguments: Any) -> Any:
            counts.add_run(self.kind, self.file, feeds)
            return super().run(names, feeds, *arguments)

    observe = ObservedModel.run

    def counted_observe(model: ObservedModel, batch: Batch) -> Iterator[dict[str, Any]]:  # runs several sessions
        counts.add_run(MEASURING, "", dict(batch.feeds))
        return observe(model, batch)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            counts.built[record.getMessage()] += 1

    logger, handler = logging.getLogger("trt_ptq.tuning.candidates.candidate_builder"), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with (
            patch.object(ort, "InferenceSession", CountingSession),
            patch.object(ObservedModel, "run", counted_observe),
        ):
            yield counts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def _kind(model: str | bytes, options: ort.SessionOptions) -> str:
    if options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL and isinstance(model, str):
        return CHECKING
    return _KINDS.get(Path(model).name, FP32) if isinstance(model, str) else MEASURING


def _file_hash(path: Path) -> str:
    """The hash of an ONNX file and of the weights beside it."""
    digest = hashlib.sha256()
    for file in sorted(path.parent.glob(f"{path.name}*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def as_arrays(batches: Iterator[Feeds]) -> list[Feeds]:
    """All batches, in memory."""
    return [{name: np.ascontiguousarray(array) for name, array in feeds.items()} for feeds in batches]
