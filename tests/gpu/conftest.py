"""Models, batches and engines for the tests that need a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.networks import images
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import range_method
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.spec import EngineSpec, ImplicitRanges, parse_profiles
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import Batch

BATCH, BATCHES = 4, 6
PROFILES = parse_profiles([f"x=1x16x8x8:{BATCH}x16x8x8:8x16x8x8"])

EngineBuilder = Callable[..., Path]


class Pictures:
    """A BatchSource of full batches of random images; counts the batches that were read."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.read = 0

    @property
    def total(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Batch]:
        for index in range(BATCHES):
            self.read += 1
            yield Batch({"x": images(BATCH, self._seed + index)}, f"batch {index}")


@pytest.fixture
def pictures() -> Pictures:
    return Pictures()


@pytest.fixture
def others() -> Pictures:
    """Batches that calibration does not use."""
    return Pictures(seed=100)


@pytest.fixture
def statistics(cnn: Model) -> Statistics:
    """Statistics of every float activation, by ONNX Runtime."""
    return collect_statistics(cnn, Pictures(), select_calibration_tensors(cnn, ("all",)), "refuse")


@pytest.fixture
def table(statistics: Statistics) -> CalibrationTable:
    return derive_table(statistics, range_method("percentile", None))


@pytest.fixture
def build(cnn: Model, table: CalibrationTable, tmp_path: Path) -> EngineBuilder:
    """Builds an engine of the CNN: "fp32", "fp16", "int8" (Q/DQ), or "int8" with `implicit` ranges."""

    def make(precision: Any, implicit: ImplicitRanges | None = None, name: str = "", **options: Any) -> Path:
        onnx = tmp_path / f"{precision}.onnx"
        if precision == "fp32" or implicit is not None:
            onnx = cnn.path
        elif precision == "fp16":
            save_model(to_float16(cnn), onnx)
        else:
            save_model(insert_qdq(cnn, table).model, onnx)
        engine = tmp_path / f"{name or precision}.engine"
        build_engine(EngineSpec(onnx, engine, precision, cnn.identity, PROFILES, implicit=implicit, **options), "trt")
        return engine

    return make
