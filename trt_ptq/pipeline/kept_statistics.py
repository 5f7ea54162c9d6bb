"""Start from statistics that an earlier run collected, instead of calibrating again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import StatisticsError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.output import TRANSFORMED
from trt_ptq.provenance import DataFingerprint, missing_shards
from trt_ptq.types import BatchSource, ProgressCallback

StatisticsLike = Union[Statistics, str, "os.PathLike[str]"]

OTHER_DATA = (
    "`stats` were collected from other samples than the calibration part of `data`: they may include samples that the "
    "models are compared on, and the verdict is optimistic then. Give samples of their own as `test_data`"
)


@dataclass(frozen=True)
class KeptStatistics:
    """Statistics of the model that is quantized; `name` is what messages call them."""

    statistics: Statistics
    name: str

    def check_tensors(self, needed: CalibrationTensors) -> None:
        """Make sure that every tensor that is needed has statistics.

        Raises:
            StatisticsError: names a tensor that has none.
        """
        known = {*self.statistics.tensors, *self.statistics.shares_range}
        missing = [name for name in (*needed.tensors, *needed.shares_range) if name not in known]
        if missing:
            raise StatisticsError(
                f"{self.name}: no statistics of {len(missing)} tensors that are needed, e.g. {missing[0]!r}: calibrate "
                "with the same `tensors` and `attention`, or leave `stats` out"
            )

    def fingerprint(self, source: BatchSource, progress: ProgressCallback) -> DataFingerprint:
        """That of the first samples of `source`, if the statistics were collected from these, else that of all."""
        found = DataFingerprint()
        for batch in progress(source, "Reading the calibration data", source.total):
            if found == self.statistics.data:
                break  # only after one more batch: a source learns its length at its end, as in a calibration
            found += DataFingerprint.from_feeds(batch.feeds)
        return found


def open_statistics(stats: StatisticsLike | None, model: Model, config: QuantizeConfig) -> KeptStatistics | None:
    """Read kept statistics; None if there are none.

    Raises:
        StatisticsError: they cannot be read, belong to another model, or lack shards.
        UsageError: something else than statistics, or `until_stable` with them.
    """
    if stats is None:
        return None
    if isinstance(stats, Statistics):
        kept = KeptStatistics(stats, "stats")
    elif isinstance(stats, (str, os.PathLike)):
        kept = KeptStatistics(load_statistics(stats), os.fspath(stats))
    else:
        raise UsageError(f"`stats` must be Statistics or a path, not {type(stats).__name__}")
    if config.until_stable is not None:
        raise UsageError("`until_stable` ends a calibration, which `stats` replaces: leave one of the two out")
    if difference := kept.statistics.model.difference(model.identity):
        transformed = Path(kept.name).with_name(TRANSFORMED)
        if transformed.is_file() and load_model(transformed).identity == kept.statistics.model:
            raise StatisticsError(
                f"{kept.name}: statistics of {transformed}, which the techniques of the run that ended there have "
                "changed: leave `stats` out, and the model is calibrated again"
            )
        raise StatisticsError(f"{kept.name}: statistics of another model: {difference}; calibrate this model")
    if missing := missing_shards(kept.statistics.shards):
        raise StatisticsError(f"{kept.name}: shard {missing[0]} is missing: merge all shards (`trt-ptq merge`) first")
    return kept
