"""Stand-in: batches that do not fit never reach TensorRT, and a small last batch is filled up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.calibrators.tensorrt.builds.building import batch, batches
from tests.calibrators.tensorrt.builds.leaks import assert_nothing_leaked
from tests.calibrators.tensorrt.builds.tables import cache_text, header
from tests.calibrators.tensorrt.conftest import LATEST, Play


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ("{'image': batch(0)['image']}", "batch 0: wrong input names (mask missing)"),
        ("{**batch(0), 'other': batch(0)['mask']}", "batch 0: wrong input names ('other' unknown)"),
        ("{**batch(0), 'mask': np.ones((4, 5))}", "batch 0: input 'mask' is float64, TensorRT reads float32"),
        ("{**batch(0), 'mask': np.ones((4, 6), np.float32)}", "batch 0: input 'mask' has shape [4, 6]"),
        ("batch(0, size=5)", "batch 0: input 'image' has shape [5, 3, 2, 2], calibration reads [4, 3, 2, 2]"),
        ("7", "batch 0: expected a dict of arrays by input name, got int"),
    ],
    ids=["missing", "unknown", "dtype", "shape", "too-many", "type"],
)
def test_batch_that_does_not_fit_the_network_is_refused_before_any_copy(
    play: Play, tmp_path: Path, feeds: str, message: str
) -> None:
    outcome = play(
        f"""
        build = Build()
        data = lambda: [{feeds}]  # opened by the build
        tell(**build_with(EntropyCalibrator(data, "model.cache", **build.known), build))
        """
    )
    assert message in outcome["raised"]
    assert outcome["counters"]["copies_to_device"] == 0
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_data_without_batches_is_refused(play: Play) -> None:
    outcome = play("build = Build(); tell(**build_with(EntropyCalibrator([], **build.known), build))")
    assert "the calibration data has no batches" in outcome["raised"]


def test_float16_input_is_fed_as_float32(play: Play, version: str) -> None:
    outcome = play(
        """
        build = Build(types={"image": "float16"})
        tell(**build_with(EntropyCalibrator(batches(2), **build.known), build))
        """,
        version=version,
    )
    assert outcome["raised"] is None
    assert outcome["plans"][0]["table"].splitlines()[1] == cache_text(header(version), batches(2)).splitlines()[1]


def test_small_last_batch_is_filled_up_with_a_warning(play: Play, tmp_path: Path) -> None:
    outcome = play(
        """
        build = Build()
        fed = [*batches(2), batch(2, size=3)]
        tell(**build_with(EntropyCalibrator(fed, "model.cache", **build.known), build))
        """
    )
    assert outcome["plans"][0]["table"] == cache_text(header(LATEST), [*batches(2), batch(2, size=3)])
    assert "batch 2: has 3 samples, calibration reads 4: filled up by repeating 1 of them" in outcome["log"]
    record = json.loads((tmp_path / "model.cache.json").read_text())
    assert (record["data"]["samples"], record["repeated_samples"]) == (11, 1)


def test_network_with_dynamic_dimensions_needs_its_profile(play: Play) -> None:
    outcome = play("build = Build(); tell(raised=raised_by(lambda: EntropyCalibrator([], network=build.network)))")
    assert outcome["raised"].startswith(
        "UsageError: input 'image' has dynamic dimensions [-1, 3, 2, 2]: pass as `profile`"
    )


def test_calibrator_without_a_network_warns_what_it_cannot_check(play: Play) -> None:
    outcome = play("build = Build(); tell(**build_with(EntropyCalibrator(batches(2)), build))")
    assert "without `network`, batches are only checked against the first batch" in outcome["log"]
    assert outcome["plans"][0]["table"] == cache_text(header(LATEST), batches(2))


def test_batch_source_of_ours_is_read_with_its_total(play: Play) -> None:
    outcome = play(
        """
        from trt_ptq.types import Batch

        class Source:
            total = 3

            def __iter__(self):
                return (Batch(batch(index), f"file {index}") for index in range(3))

        totals = []
        build = Build()
        progress = lambda batches, description, total: totals.append(total) or batches
        tell(totals=totals, **build_with(EntropyCalibrator(Source(), progress=progress, **build.known), build))
        """
    )
    assert outcome["totals"] == [3]
    assert outcome["plans"][0]["batches"] == 3


def test_second_attempt_after_an_unfinished_one_needs_a_new_calibrator(play: Play) -> None:
    outcome = play(
        """
        build = Build()
        calibrator = EntropyCalibrator(batches(3), **build.known)
        calibrator.read_calibration_cache()
        calibrator.get_batch(["image", "mask"])
        tell(**build_with(calibrator, build))
        """
    )
    assert "an earlier build stopped before the end of the data: create a new calibrator" in outcome["raised"]
    assert_nothing_leaked(outcome)
