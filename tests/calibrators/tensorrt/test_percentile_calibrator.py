"""Stand-in: percentile ranges from our statistics, min-max ranges for the tensors that only TensorRT knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.calibrators.tensorrt.builds.building import IDENTITY_OUTPUT, batches
from tests.calibrators.tensorrt.builds.tables import cache_text, header, scale_hex
from tests.calibrators.tensorrt.conftest import LATEST, Play
from trt_ptq.calibrators.methods import Percentile
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator

STATISTICS = """
from trt_ptq.provenance import DataFingerprint, ModelIdentity
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator

def statistics_of(name, digest="d"):
    accumulator = TensorAccumulator()
    for feeds in batches(5):
        accumulator.update(feeds["image"])
    return Statistics(ModelIdentity("g", "w"), DataFingerprint(20, digest), (), {name: accumulator.statistics()})
"""
TWO_PASSES = """
build = Build()
calibrator = PercentileCalibrator(
    batches(5), "model.cache", statistics=statistics_of("image"), percentile=90, **build.known
)
tell(**build_with(calibrator, build))
"""


def expected(version: str) -> str:
    accumulator = TensorAccumulator()
    for feeds in batches(5):
        accumulator.update(feeds["image"])
    clipped = scale_hex(Percentile(90).amax(accumulator.statistics()))
    lines = cache_text(header(version, "MinMaxCalibration"), batches(5)).splitlines()
    assert lines[1].startswith("image: ")
    assert lines[1] != f"image: {clipped}"
    return "\n".join([lines[0], f"image: {clipped}", *lines[2:]]) + "\n"


def test_second_build_uses_percentiles_where_there_are_statistics_and_min_max_elsewhere(
    play: Play, tmp_path: Path, version: str
) -> None:
    outcome = play(STATISTICS + TWO_PASSES, version=version)
    assert outcome["raised"] is None
    measuring, final = outcome["plans"]
    assert measuring["source"] == "calibrated"
    assert final["source"] == "cache"
    assert final["table"] == expected(version) == (tmp_path / "model.cache").read_text()
    assert IDENTITY_OUTPUT in final["table"]


def test_complete_cache_needs_one_build_and_no_data(play: Play) -> None:
    play(STATISTICS + TWO_PASSES)
    outcome = play(STATISTICS + TWO_PASSES.replace("batches(5)", "after(0, ValueError('read'), [])"))
    assert outcome["raised"] is None
    assert [plan["table"] for plan in outcome["plans"]] == [expected(LATEST)]


def test_record_says_which_percentile_of_which_data(play: Play, tmp_path: Path) -> None:
    play(STATISTICS + TWO_PASSES)
    record = json.loads((tmp_path / "model.cache.json").read_text())
    assert record["ranges"] == "percentile 90 of data d"
    assert record["model"] == {"graph": "g", "weights": "w"}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            "MinMaxCalibrator(batches(2), 'model.cache')",
            "statistics_of('image')",
            "holds minmax ranges, not percentile",
        ),
        (
            "PercentileCalibrator(batches(2), 'model.cache', statistics=statistics_of('image'), percentile=90)",
            "statistics_of('image')",
            "holds percentile 90 of data d ranges, not percentile 99.99 of data d",
        ),
        (
            "PercentileCalibrator(batches(2), 'model.cache', statistics=statistics_of('image', 'e'))",
            "statistics_of('image')",
            "holds percentile 99.99 of data e ranges, not percentile 99.99 of data d",
        ),
    ],
    ids=["min-max", "percentile", "data"],
)
def test_cache_with_other_ranges_is_refused(play: Play, first: str, second: str, message: str) -> None:
    outcome = play(
        f"""{STATISTICS}
build = Build()
build_with({first}, build)
tell(raised=raised_by(lambda: PercentileCalibrator([], "model.cache", statistics={second})))
"""
    )
    assert message in outcome["raised"]


def test_cache_without_a_record_is_refused(play: Play, tmp_path: Path) -> None:
    (tmp_path / "model.cache").write_text(cache_text(header(LATEST, "MinMaxCalibration"), batches(1)))
    outcome = play(
        f"{STATISTICS}\n"
        "again = lambda: PercentileCalibrator([], 'model.cache', statistics=statistics_of('image'))\n"
        "tell(raised=raised_by(again))"
    )
    assert "model.cache: no model.cache.json confirms that it holds percentile 99.99" in outcome["raised"]


def test_leaving_after_the_first_build_is_an_error(play: Play) -> None:
    outcome = play(
        f"""{STATISTICS}
build = Build()
def block():
    with PercentileCalibrator(batches(2), statistics=statistics_of("image"), **build.known) as calibrator:
        build.run(calibrator)
tell(raised=raised_by(block))
"""
    )
    assert "the engine was built with min-max ranges: build once more" in outcome["raised"]


def test_statistics_of_other_tensors_are_refused(play: Play, tmp_path: Path) -> None:
    outcome = play(STATISTICS + TWO_PASSES.replace('statistics_of("image")', 'statistics_of("pixels")'))
    assert "the statistics name no tensor of this network" in outcome["raised"]
    assert len(outcome["plans"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_statistics_of_another_model_are_refused(play: Play) -> None:
    outcome = play(
        f"{STATISTICS}\n"
        "make = lambda: PercentileCalibrator(\n"
        "    [], statistics=statistics_of('image'), model=ModelIdentity('g', 'other'))\n"
        "tell(raised=raised_by(make))"
    )
    assert "the statistics: made for another model: the graph is the same but the weights differ" in outcome["raised"]


def test_exception_in_the_measuring_build_stops_before_the_second_one(play: Play, tmp_path: Path) -> None:
    outcome = play(STATISTICS + TWO_PASSES.replace("batches(5), ", "after(2, ValueError('broken'), batches(5)), "))
    assert outcome["raised"] == "DataError: after fails at batch 2: ValueError: broken"
    assert len(outcome["plans"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_code_without_a_block_is_warned_that_the_second_build_is_missing(play: Play) -> None:
    outcome = play(
        f"""{STATISTICS}
build = Build()
calibrator = PercentileCalibrator(batches(2), statistics=statistics_of("image"), **build.known)
build.run(calibrator)
build.config.int8_calibrator = None
del calibrator
tell()
"""
    )
    assert outcome["log"].count("CalibrationFailedWarning: the engine was built with min-max ranges") == 1
