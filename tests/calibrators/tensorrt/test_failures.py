"""Stand-in: what TensorRT would swallow is kept, raised after the build, and leaves no cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.calibrators.tensorrt.conftest import Play
from tests.calibrators.tensorrt.leaks import assert_nothing_leaked


@pytest.mark.parametrize("calibrator", ["EntropyCalibrator", "MinMaxCalibrator"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("ValueError('batch 2 is broken')", "ValueError: batch 2 is broken"),
        ("KeyboardInterrupt()", "KeyboardInterrupt: "),
    ],
)
def test_exception_in_the_middle_is_raised_after_the_build_and_no_cache_is_written(
    play: Play, tmp_path: Path, version: str, calibrator: str, error: str, told: str
) -> None:
    outcome = play(
        f"""
        build = Build()
        calibrator = {calibrator}(after(2, {error}, batches(5)), "model.cache", **build.known)
        tell(**build_with(calibrator, build))
        """,
        version=version,
    )
    assert outcome["raised"] == told
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
    assert outcome["raised"] == "ValueError: no disk"
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
                if found and self._feeder.batches >= 2:
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
                if self._feeder and self._feeder.batches >= 2:
                    raise KeyboardInterrupt
                return super().get_batch(names)

        tell(**build_with(Escaping(batches(5), "model.cache", **build.known), build))
        """
    )
    assert "stopped calibrating before the data ended" in outcome["raised"]
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_ctrl_c_works_as_ever_after_the_block(play: Play) -> None:
    outcome = play(
        """
        build = Build()
        result = build_with(EntropyCalibrator(batches(1), **build.known), build)
        tell(handler=signal.getsignal(signal.SIGINT) is signal.default_int_handler, **result)
        """
    )
    assert outcome["handler"] is True


def test_kept_exception_wins_over_the_one_that_the_failed_build_raised(play: Play) -> None:
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
    assert outcome["raised"] == "ValueError: the cause"


def test_kept_exception_is_raised_without_a_block_too(play: Play) -> None:
    outcome = play(
        """
        build = Build()
        calibrator = EntropyCalibrator(after(1, ValueError("broken"), batches(2)), **build.known)
        build.run(calibrator)
        tell(raised=raised_by(calibrator.raise_deferred))
        """
    )
    assert outcome["raised"] == "ValueError: broken"
    assert_nothing_leaked(outcome)


@pytest.mark.parametrize(
    ("pointers", "told"),
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
def test_wrong_pointer_list_never_reaches_tensorrt(play: Play, tmp_path: Path, pointers: str, told: str) -> None:
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
    assert told in outcome["raised"]
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
