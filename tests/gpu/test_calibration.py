"""TensorRT 10's builder calibrates with our calibrators on a real GPU."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import EngineBuilder, Pictures
from tests.gpu.machine import IMPLICIT, ON_GPU, WITHOUT_CALIBRATORS
from tests.networks import images
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache
from trt_ptq.engines.manifest import read_manifest
from trt_ptq.engines.spec import DynamicRanges, MakeCalibrator
from trt_ptq.errors import DataError, EngineError
from trt_ptq.evaluation.compare_engines import compare_engines
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Batch

pytestmark = ON_GPU
MIN_SQNR_DB = 20

calibrators: Any = importlib.import_module("trt_ptq.calibrators")


def maker(kind: str, source: Any, cache: Path | None, statistics: Statistics, model: Model) -> MakeCalibrator:
    options = {"statistics": statistics} if kind == "PercentileCalibrator" else {}

    def make(network: Any, profile: Any) -> Any:
        cls = getattr(calibrators, kind)
        return cls(source, cache, network=network, profile=profile, model=model.identity, **options)

    return make


BATCH_CALIBRATORS = ("EntropyCalibrator", "MinMaxCalibrator", "PercentileCalibrator")


@IMPLICIT
@pytest.mark.parametrize("kind", BATCH_CALIBRATORS)
def test_each_class_builds_an_int8_engine_close_to_fp16_and_saves_a_cache(
    kind: str,
    build: EngineBuilder,
    pictures: Pictures,
    others: Pictures,
    statistics: Statistics,
    cnn: Model,
    tmp_path: Path,
) -> None:
    cache = tmp_path / f"{kind}.cache"
    int8 = build("int8", maker(kind, pictures, cache, statistics, cnn))
    assert pictures.read >= pictures.total
    assert {"x", "r1"} <= TensorRTCache.read(cache).scales().keys()
    assert cache.with_name(cache.name + ".json").exists()
    fidelity = compare_engines(build("fp16"), int8, others).outputs["y"]
    assert fidelity.sqnr_db > MIN_SQNR_DB


@IMPLICIT
@pytest.mark.parametrize("kind", BATCH_CALIBRATORS)
def test_a_cache_is_used_again_and_no_batch_is_read(
    kind: str, build: EngineBuilder, pictures: Pictures, statistics: Statistics, cnn: Model, tmp_path: Path
) -> None:
    cache = tmp_path / "calibration.cache"
    build("int8", maker(kind, pictures, cache, statistics, cnn), name="first")
    before, again = cache.read_bytes(), Pictures()
    build("int8", maker(kind, again, cache, statistics, cnn), name="second")
    assert again.read == 0
    assert cache.read_bytes() == before


@IMPLICIT
def test_minmax_of_the_input_is_what_numpy_sees(
    build: EngineBuilder, pictures: Pictures, statistics: Statistics, cnn: Model, tmp_path: Path
) -> None:
    cache = tmp_path / "minmax.cache"
    build("int8", maker("MinMaxCalibrator", pictures, cache, statistics, cnn))
    amax = max(float(np.abs(batch.feeds["x"]).max()) for batch in Pictures())
    assert TensorRTCache.read(cache).scales()["x"] == pytest.approx(amax / 127, rel=1e-6)


@IMPLICIT
@pytest.mark.parametrize("ranges", ["table", "dynamic ranges"])
def test_a_table_needs_no_data(ranges: str, build: EngineBuilder, table: CalibrationTable, others: Pictures) -> None:
    int8 = build("int8", DynamicRanges(table) if ranges == "dynamic ranges" else table)
    assert read_manifest(int8).flags[:2] == ("int8", "fp16")
    assert compare_engines(build("fp16"), int8, others).outputs["y"].sqnr_db > MIN_SQNR_DB


@IMPLICIT
def test_table_calibrator_serves_the_same_table(
    build: EngineBuilder, table: CalibrationTable, others: Pictures
) -> None:
    int8 = build("int8", lambda network, _profile: calibrators.TableCalibrator(table, network=network))
    assert compare_engines(build("fp16"), int8, others).outputs["y"].sqnr_db > MIN_SQNR_DB


@IMPLICIT
@pytest.mark.parametrize(
    ("failure", "raised"), [(OSError("the disk is gone"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_an_exception_in_the_data_ends_the_build_and_leaves_no_file(
    failure: BaseException,
    raised: type[BaseException],
    build: EngineBuilder,
    statistics: Statistics,
    cnn: Model,
    tmp_path: Path,
) -> None:
    def failing() -> Iterator[Batch]:
        yield Batch({"x": images(4)}, "batch 0")
        raise failure

    cache = tmp_path / "calibration.cache"
    with pytest.raises(raised):
        build("int8", maker("EntropyCalibrator", failing(), cache, statistics, cnn))
    assert not cache.exists()
    assert not (tmp_path / "int8.engine").exists()


@IMPLICIT
def test_a_nan_in_the_data_is_named(build: EngineBuilder, statistics: Statistics, cnn: Model, tmp_path: Path) -> None:
    with_nan = images(4)
    with_nan[1, 2, 3, 4] = np.nan
    source = [Batch({"x": images(4)}, "good.npz"), Batch({"x": with_nan}, "bad.npz")]
    with pytest.raises(DataError, match=r"bad\.npz"):
        build("int8", maker("EntropyCalibrator", source, None, statistics, cnn))


@WITHOUT_CALIBRATORS
def test_tensorrt_11_says_what_to_do_instead(build: EngineBuilder, table: CalibrationTable) -> None:
    with pytest.raises(EngineError, match="trt-ptq qdq MODEL --table TABLE"):
        build("int8", table)
