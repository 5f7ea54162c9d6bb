"""Stand-in: an exception that TensorRT would swallow is reported, raised after the build, and no cache is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.calibrators.tensorrt.builds.leaks import assert_nothing_leaked
from tests.calibrators.tensorrt.conftest import Play


@pytest.mark.parametrize("calibrator", ["EntropyCalibrator", "MinMaxCalibrator"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ValueError('batch 2 is broken')", "DataError: after fails at batch 2: ValueError: batch 2 is broken"),
        ("KeyboardInterrupt()", "KeyboardInterrupt: "),
    ],
)
def test_exception_in_the_middle_is_raised_after_the_build_and_no_cache_is_written(
    play: Play, tmp_path: Path, version: str, calibrator: str, error: str, message: str
) -> None:
    outcome = play(
        f"""
        build = Build()
        calibrator = {calibrator}(after(2, {error}, batches(5)), "model.cache", **build.known)
        tell(**build_with(calibrator, build))
        """,
        version=version,
    )
    assert outcome["raised"] == message
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_exception_before_the_first_batch_is_raised_after_the_build(play: Play, tmp_path: Path) -> None:
    outcome = play(
        """
        build = Build()
        calibrator = EntropyCalibrator(after(0, ValueError("no disk"), []), "model.cache", **build.known)
        tell(**build_with(calibrator, build))
        """
    )
    assert outcome["raised"] == "DataError: after fails at batch 0: ValueError: no disk"
    assert outcome["plans"] == [None]
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_ctrl_c_while_tensorrt_works_is_raised_after_the_build(play: Play, tmp_path: Path, version: str) -> None:
    outcome = play(
        """
        build = Build()

        class Interrupted(EntropyCalibrator):
            def get_batch(self, names):
                found = super().get_batch(names)
                if found and self._prefetcher.batches >= 2:
                    signal.raise_signal(signal.SIGINT)  # its handler runs with the next instruction of Python's
                return found

        tell(**build_with(Interrupted(batches(5), "model.cache", **build.known), build))
        """,
        version=version,
    )
    assert outcome["raised"] == "KeyboardInterrupt: "
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_ctrl_c_while_a_batch_is_loaded_is_raised_after_the_build(play: Play, tmp_path: Path) -> None:
    outcome = play(
        """
        import threading, time

        def source():
            for index in range(1000):
                if index == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
                yield batch(index)

        build = Build()
        tell(**build_with(EntropyCalibrator(source(), "model.cache", **build.known), build))
        """
    )
    assert outcome["raised"] == "KeyboardInterrupt: "
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_exception_that_escapes_a_callback_leaves_no_cache(play: Play, tmp_path: Path) -> None:
    outcome = play(
        """
        build = Build()

        class Escaping(EntropyCalibrator):
            def get_batch(self, names):
                if self._prefetcher and self._prefetcher.batches >= 2:
                    raise KeyboardInterrupt
                return super().get_batch(names)

        tell(**build_with(Escaping(batches(5), "model.cache", **build.known), build))
        """
    )
    assert "stopped calibrating before the end of the data" in outcome["raised"]
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_ctrl_c_works_as_usual_after_the_block(play: Play) -> None:
    outcome = play(
        """
        build = Build()
        result = build_with(EntropyCalibrator(batches(1), **build.known), build)
        tell(handler=signal.getsignal(signal.SIGINT) is signal.default_int_handler, **result)
        """
    )
    assert outcome["handler"] is True


def test_deferred_exception_wins_over_the_exception_of_the_failed_build(play: Play) -> None:
    outcome = play(
        """
        build = Build()

        def block():
            with EntropyCalibrator(after(0, ValueError("the cause"), []), **build.known) as calibrator:
                if build.run(calibrator) is None:
                    raise RuntimeError("the build failed")

        tell(raised=raised_by(block))
        """
    )
    assert outcome["raised"] == "DataError: after fails at batch 0: ValueError: the cause"


def test_deferred_exception_is_raised_without_a_block_too(play: Play) -> None:
    outcome = play(
        """
        build = Build()
        calibrator = EntropyCalibrator(after(1, ValueError("broken"), batches(2)), **build.known)
        build.run(calibrator)
        tell(raised=raised_by(calibrator.raise_deferred))
        """
    )
    assert outcome["raised"] == "DataError: after fails at batch 1: ValueError: broken"
    assert_nothing_leaked(outcome)


@pytest.mark.parametrize(
    ("pointers", "message"),
    [
        ("found[:1]", "needs 2 device pointers, for image, mask; got ["),
        ("found + found", "needs 2 device pointers"),
        ("'pointers'", "needs 2 device pointers"),
        ("[found[0], str(found[1])]", "for input 'mask', got '"),
        ("[None, found[1]]", "for input 'image', got None"),
        ("[found[0], float(found[1])]", "for input 'mask'"),
        ("[0, found[1]]", "for input 'image', got 0"),
    ],
    ids=["short", "long", "text", "text-pointer", "none", "float", "null"],
)
def test_wrong_pointer_list_never_reaches_tensorrt(play: Play, tmp_path: Path, pointers: str, message: str) -> None:
    outcome = play(
        f"""
        build = Build()

        class Wrong(EntropyCalibrator):
            def pointers(self, names):
                found = super().pointers(names)
                return {pointers}

        tell(**build_with(Wrong(batches(5), "model.cache", **build.known), build))
        """
    )
    assert message in outcome["raised"]
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_unwritable_cache_is_refused_before_the_build(play: Play, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = play("build = Build(); tell(raised=raised_by(lambda: EntropyCalibrator([], 'file/model.cache')))")
    assert outcome["raised"].startswith("OutputError: cannot write file/model.cache")


def test_cache_that_cannot_be_written_in_the_end_fails_the_build(play: Play, tmp_path: Path) -> None:
    outcome = play(
        """
        build = Build()
        calibrator = EntropyCalibrator(batches(2), "model.cache", **build.known)
        Path("model.cache").mkdir()
        tell(**build_with(calibrator, build))
        """
    )
    assert outcome["raised"].startswith("OutputError: cannot write model.cache")


SWAPPED_IN = """
import gc, logging, sys
sys.stderr = sys.stdout  # one order for both
logging.basicConfig(format="log %(levelname)s %(name)s: %(message)s")

def build_as_before():  # code for a calibrator class of the user's: no `with`, no passes()
    build = Build()
    calibrator = EntropyCalibrator(after(3, ValueError("disk gone"), batches(5)), "model.cache", **build.known)
    plan = build.run(calibrator)
    print("-- built", flush=True)
    build.config.int8_calibrator = None
    {finally_}
    return plan

plan = build_as_before()
gc.collect()
print("-- end", flush=True)
tell(plan=plan)
"""


@pytest.mark.parametrize(
    ("finally_", "reports"),
    [("pass", 1), ("calibrator.close(); calibrator.close()", 1), ("raised_by(calibrator.raise_deferred)", 0)],
    ids=["deleted", "closed", "raised"],
)
def test_failure_in_code_without_a_block_is_reported_at_once_and_again_if_nobody_raises_it(
    play: Play, tmp_path: Path, finally_: str, reports: int
) -> None:
    outcome = play(SWAPPED_IN.format(finally_=finally_))
    assert outcome["plan"]["batches"] == 3  # TensorRT itself does not mind
    during, _, after = outcome["log"].partition("-- built")
    first = (
        "calibration failed (DataError: after fails at batch 3: ValueError: disk gone), but TensorRT finishes the build"
    )
    assert during.count(f"CalibrationFailedWarning: {first}") == 1
    assert during.count(f"log ERROR trt_ptq.calibrators.tensorrt.deferred_error: {first}") == 1
    assert after.partition("-- end")[0].count("CalibrationFailedWarning: ") == reports
    assert after.count("the exception was never raised: the engine was built from incomplete data") == 2 * reports
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_warnings_that_are_errors_do_not_hide_the_failure(play: Play) -> None:
    outcome = play(
        """
        import warnings
        build = Build()
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        tell(**build_with(EntropyCalibrator(after(1, ValueError("broken"), batches(5)), **build.known), build))
        """
    )
    assert outcome["raised"] == "DataError: after fails at batch 1: ValueError: broken"


def test_failure_in_a_block_is_reported_at_once_and_not_again(play: Play) -> None:
    outcome = play(
        """
        build = Build()
        calibrator = EntropyCalibrator(after(1, ValueError("broken"), batches(5)), **build.known)
        result = build_with(calibrator, build)
        calibrator.close()
        tell(**result)
        """
    )
    assert outcome["raised"] == "DataError: after fails at batch 1: ValueError: broken"
    assert outcome["log"].count("CalibrationFailedWarning") == 1
