"""Stand-in: which calibration caches a calibrator serves to TensorRT, and which it refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.calibrators.tensorrt.builds.building import batches
from tests.calibrators.tensorrt.builds.tables import cache_text, header
from tests.calibrators.tensorrt.conftest import LATEST, Play
from trt_ptq.provenance import DataFingerprint
from trt_ptq.version import __version__

CALIBRATE = 'build = Build(); tell(**build_with(EntropyCalibrator(batches(5), "model.cache", **build.known), build))'
OTHER_MODEL = """
from trt_ptq.provenance import ModelIdentity
build = Build()
first = EntropyCalibrator(batches(2), "model.cache", model=ModelIdentity("graph", "weights"), **build.known)
build_with(first, build)
again = lambda: EntropyCalibrator([], "model.cache", model=ModelIdentity({graph!r}, {weights!r}), **build.known)
tell(raised=raised_by(again))
"""


def made_cache(play: Play, **how: Any) -> None:
    assert play(CALIBRATE, **how)["raised"] is None


def test_cache_is_reused_without_reading_a_batch(play: Play, tmp_path: Path, version: str) -> None:
    made_cache(play, version=version)
    outcome = play(
        """
        build = Build()
        calibrator = EntropyCalibrator(after(0, ValueError("read"), []), "model.cache", **build.known)
        tell(**build_with(calibrator, build))
        """,
        version=version,
    )
    assert outcome["raised"] is None
    assert outcome["plans"][0]["source"] == "cache"
    assert outcome["plans"][0]["table"] == (tmp_path / "model.cache").read_text()
    assert outcome["counters"]["peak_device_bytes"] == 0


def test_record_beside_the_cache_names_its_origin(play: Play, tmp_path: Path) -> None:
    made_cache(play)
    data = sum((DataFingerprint.from_feeds(feeds) for feeds in batches(5)), DataFingerprint())
    assert json.loads((tmp_path / "model.cache.json").read_text()) == {
        "algorithm": "EntropyCalibration2",
        "ranges": "entropy",
        "tensorrt": LATEST,
        "trt_ptq": __version__,
        "model": None,
        "data": {"samples": 20, "digest": data.digest},
        "batches": 5,
        "repeated_samples": 0,
        "sha256": hashlib.sha256((tmp_path / "model.cache").read_bytes()).hexdigest(),
    }


def test_cache_of_another_minor_version_is_used(play: Play, tmp_path: Path) -> None:
    (tmp_path / "model.cache").write_text(cache_text("TRT-100700-EntropyCalibration2", batches(1)))
    assert play(CALIBRATE)["plans"][0]["source"] == "cache"


@pytest.mark.parametrize(
    "first_line",
    ["TRT-8601-EntropyCalibration2", "TRT-110000-EntropyCalibration2", header(LATEST, "MinMaxCalibration")],
    ids=["older", "newer", "algorithm"],
)
def test_cache_that_tensorrt_would_ignore_is_refused_and_left_alone(
    play: Play, tmp_path: Path, version: str, first_line: str
) -> None:
    content = cache_text(first_line, batches(1))
    (tmp_path / "model.cache").write_text(content)
    outcome = play(
        "build = Build(); tell(raised=raised_by(lambda: EntropyCalibrator(batches(5), 'model.cache', **build.known)))",
        version=version,
    )
    assert outcome["raised"].startswith(f"TableError: model.cache: TensorRT {version[:4]}")
    assert "trt-ptq cache retarget" in outcome["raised"]
    assert (tmp_path / "model.cache").read_text() == content


@pytest.mark.parametrize(
    ("graph", "weights", "difference"),
    [
        ("graph", "other", "the graph is the same but the weights differ"),
        ("other", "weights", "the weights are the same but the graph differs"),
        ("other", "other", "both graph and weights differ"),
    ],
)
def test_cache_of_another_model_is_refused_with_what_differs(
    play: Play, graph: str, weights: str, difference: str
) -> None:
    outcome = play(OTHER_MODEL.format(graph=graph, weights=weights))
    assert f"TableError: model.cache: belongs to another model: {difference}" in outcome["raised"]


def test_cache_of_the_same_model_is_accepted(play: Play) -> None:
    assert play(OTHER_MODEL.format(graph="graph", weights="weights"))["raised"] is None


def test_cache_without_a_record_is_used_with_a_warning_where_the_model_is_known(play: Play, tmp_path: Path) -> None:
    (tmp_path / "model.cache").write_text(cache_text(header(LATEST), batches(1)))
    outcome = play(
        """
        from trt_ptq.provenance import ModelIdentity
        build = Build()
        calibrator = EntropyCalibrator([], "model.cache", model=ModelIdentity("graph", "weights"), **build.known)
        tell(**build_with(calibrator, build))
        """
    )
    assert outcome["plans"][0]["source"] == "cache"
    assert (
        "model.cache: used without a check that it belongs to this model: there is no model.cache.json"
        in outcome["log"]
    )


def refusal(play: Play) -> str:
    outcome = play("build = Build(); tell(raised=raised_by(lambda: EntropyCalibrator([], 'model.cache')))")
    return str(outcome["raised"])


def test_corrupt_cache_is_refused_with_the_line(play: Play, tmp_path: Path) -> None:
    (tmp_path / "model.cache").write_text(f"{header(LATEST)}\nimage: 3c010a14\nmask: 3c01\n")
    assert refusal(play).startswith("TableError: model.cache, line 3: expected 'tensor name: 8 hex digits'")


def test_cache_that_was_changed_after_its_record_is_refused(play: Play, tmp_path: Path) -> None:
    made_cache(play)
    (tmp_path / "model.cache").write_text(cache_text(header(LATEST), batches(1)))
    assert "model.cache: differs from the cache in model.cache.json" in refusal(play)


def test_damaged_record_is_refused(play: Play, tmp_path: Path) -> None:
    made_cache(play)
    (tmp_path / "model.cache.json").write_text('{"algorithm": ')
    assert "model.cache.json: not the record of a calibration cache" in refusal(play)


def test_calibrator_serves_its_own_result_to_a_second_build(play: Play) -> None:
    outcome = play(
        """
        build = Build()
        with EntropyCalibrator(iter(batches(3)), **build.known) as calibrator:
            plans = [build.run(calibrator), build.run(calibrator)]
        tell(plans=plans)
        """
    )
    first, second = outcome["plans"]
    assert (first["source"], second["source"]) == ("calibrated", "cache")
    assert first["table"] == second["table"]


def test_cache_that_names_no_tensor_of_the_network_is_refused_without_a_record_too(play: Play, tmp_path: Path) -> None:
    (tmp_path / "model.cache").write_text(f"{header(LATEST)}\nsome_other_input: 3c010a14\n")
    outcome = play(
        "build = Build(); tell(raised=raised_by(lambda: EntropyCalibrator([], 'model.cache', **build.known)))"
    )
    assert outcome["raised"] == (
        "TableError: model.cache: names no tensor of this network: it belongs to another model"
    )


def test_record_without_a_model_is_warned_about_where_the_model_is_known(play: Play, tmp_path: Path) -> None:
    made_cache(play)
    outcome = play(
        """
        from trt_ptq.provenance import ModelIdentity
        build = Build()
        EntropyCalibrator([], "model.cache", model=ModelIdentity("graph", "weights"), **build.known)
        tell()
        """
    )
    assert (
        "model.cache: used without a check that it belongs to this model: model.cache.json names none" in outcome["log"]
    )


@pytest.mark.parametrize(
    "calibrator",
    [
        "EntropyCalibrator([], 'model.cache', **build.known)",
        "TableCalibrator(CalibrationTable({'image': 1.0}), network=build.network)",
    ],
)
def test_a_served_cache_that_tensorrt_writes_back_changes_nothing(play: Play, tmp_path: Path, calibrator: str) -> None:
    made_cache(play)
    before = (tmp_path / "model.cache").read_bytes()
    outcome = play(
        f"""
        from trt_ptq.calibrators.table.calibration_table import CalibrationTable
        build = Build()
        calibrator = {calibrator}
        calibrator.write_calibration_cache(memoryview(calibrator.read_calibration_cache()))
        tell(raised=raised_by(calibrator.raise_deferred))
        """
    )
    assert outcome["raised"] is None
    assert (tmp_path / "model.cache").read_bytes() == before


def test_saved_cache_is_a_copy_and_not_tensorrts_own_memory(play: Play) -> None:
    outcome = play(
        """
        kinds = []

        class Watched(EntropyCalibrator):
            def accept_cache(self, content):
                kinds.append(type(content).__name__)
                super().accept_cache(content)

        build = Build()
        tell(kinds=kinds, **build_with(Watched(batches(2), **build.known), build))
        """
    )
    assert outcome["kinds"] == ["bytes"]
