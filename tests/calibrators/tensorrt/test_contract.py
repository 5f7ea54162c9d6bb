"""Stand-in: our calibrators driven through the genuine bindings, row by row of TensorRT's contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.calibrators.tensorrt.building import batches
from tests.calibrators.tensorrt.conftest import LATEST, Play
from tests.calibrators.tensorrt.tables import cache_text, header

LEAKABLE = ("device_allocations", "device_bytes", "pinned_allocations", "streams", "events", "primary_context_users")


def assert_nothing_leaked(outcome: dict[str, Any]) -> None:
    assert {name: outcome["counters"][name] for name in LEAKABLE} == dict.fromkeys(LEAKABLE, 0)


# ---- what goes well


@pytest.mark.parametrize(
    ("calibrator", "interface", "algorithm"),
    [
        ("EntropyCalibrator", "IInt8EntropyCalibrator2", "EntropyCalibration2"),
        ("MinMaxCalibrator", "IInt8MinMaxCalibrator", "MinMaxCalibration"),
    ],
)
def test_calibrator_is_a_real_one_and_its_cache_holds_the_scales_that_numpy_computes(
    play: Play, tmp_path: Path, version: str, calibrator: str, interface: str, algorithm: str
) -> None:
    outcome = play(
        f"""
        build = Build()
        calibrator = {calibrator}(batches(5), "model.cache", **build.known)
        real = isinstance(calibrator, build.trt.{interface}) and isinstance(calibrator, {calibrator})
        tell(real=real, **build_with(calibrator, build))
        """,
        version=version,
    )
    assert outcome["real"] is True
    assert outcome["raised"] is None
    assert (tmp_path / "model.cache").read_text() == cache_text(header(version, algorithm), batches(5))
    assert outcome["plans"][0]["source"] == "calibrated"
    assert_nothing_leaked(outcome)


def test_batches_arrive_whole_and_in_order_when_copies_are_deferred(play: Play) -> None:
    outcome = play(
        """
        import ctypes
        build = Build()
        seen = []

        class Watched(EntropyCalibrator):
            def pointers(self, names):
                found = super().pointers(names)
                for name, pointer in zip(names, found or []):
                    shape = (BATCH_SIZE, *SAMPLE_SHAPES[name])
                    memory = (ctypes.c_float * int(np.prod(shape))).from_address(pointer)
                    seen.append([name, np.array_equal(np.reshape(memory, shape), batch(len(seen) // 2)[name])])
                return found

        result = build_with(Watched(batches(7), **build.known), build)
        tell(seen=seen, **result)
        """,
        defer=True,
    )
    assert outcome["seen"] == [["image", True], ["mask", True]] * 7
    assert outcome["plans"][0]["batches"] == 7


def test_pointers_follow_the_order_of_the_names_asked_for(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(3), **build.known), build))", reverse_names=True
    )
    assert outcome["plans"][0]["table"] == cache_text(header(LATEST), batches(3))


def test_integer_inputs_are_fed_as_they_are(play: Play, version: str) -> None:
    outcome = play(
        """
        import ctypes
        build = Build(types={"mask": "int32"})
        fed = [{**one, "mask": np.arange(20, dtype=np.int32).reshape(4, 5)} for one in batches(2)]
        read = []

        class Watched(EntropyCalibrator):
            def pointers(self, names):
                found = super().pointers(names)
                if found:
                    read.append(list((ctypes.c_int32 * 20).from_address(found[list(names).index("mask")])))
                return found

        result = build_with(Watched(fed, **build.known), build)
        tell(read=read, **result)
        """,
        version=version,
    )
    assert outcome["read"] == [list(range(20))] * 2
    assert outcome["plans"][0]["table"] == cache_text(header(version), batches(2), names=["image"])


def test_memory_is_allocated_once_for_each_input_and_slot(play: Play) -> None:
    outcome = play("build = Build(); tell(**build_with(EntropyCalibrator(batches(9), **build.known), build))")
    assert outcome["counters"]["peak_device_bytes"] == 2 * (4 * 12 + 4 * 5) * 4
    assert outcome["counters"]["copies_to_device"] == 2 * 9


def test_next_batch_is_loaded_before_tensorrt_asks_for_it(play: Play) -> None:
    outcome = play(
        """
        import threading
        loaded = [threading.Event() for _ in range(3)]

        def source():
            for index in range(3):
                loaded[index].set()
                yield batch(index)

        build = Build()
        ahead = []

        class Slow(EntropyCalibrator):
            def get_batch(self, names):
                found = super().get_batch(names)
                ahead.append(len(ahead) > 1 or loaded[len(ahead) + 1].wait(20))
                return found

        result = build_with(Slow(source(), **build.known), build)
        tell(ahead=ahead, **result)
        """
    )
    assert outcome["ahead"] == [True] * 4


def test_context_that_the_caller_made_current_is_used_and_left_alone(play: Play) -> None:
    outcome = play(
        """
        from cuda.bindings import driver
        driver.cuInit(0)
        _, context = driver.cuDevicePrimaryCtxRetain(0)
        driver.cuCtxSetCurrent(context)
        build = Build()
        result = build_with(EntropyCalibrator(batches(2), **build.known), build)
        still = int(driver.cuCtxGetCurrent()[1]) == int(context)
        tell(still=still, **result)
        """
    )
    assert outcome["still"] is True
    assert outcome["raised"] is None
    assert outcome["counters"]["primary_context_users"] == 1


def test_progress_is_shown_by_the_track_that_is_passed(play: Play) -> None:
    outcome = play(
        """
        shown = []

        def track(batches, description, total):
            shown.append([description, total])
            for one in batches:
                shown.append(one.origin)
                yield one

        build = Build()
        result = build_with(EntropyCalibrator(batches(2), track=track, **build.known), build)
        tell(shown=shown, **result)
        """
    )
    assert outcome["shown"] == [["Calibrating", 2], "batch 0", "batch 1"]


# ---- what TensorRT would swallow


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
        tell(raised=raised_by(calibrator.raise_kept))
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


# ---- devices


def test_out_of_memory_tells_what_was_asked_for_and_what_is_free(play: Play, tmp_path: Path) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), 'model.cache', **build.known), build))",
        limit_bytes=300,
    )
    assert "asked for 2 x (image 192 bytes, mask 80 bytes) = 544 bytes" in outcome["raised"]
    assert "28 of 300 were still free" in outcome["raised"]
    assert list(tmp_path.iterdir()) == []
    assert_nothing_leaked(outcome)


def test_machine_without_a_device_is_told_plainly(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), **build.known), build))", no_device=True
    )
    assert outcome["raised"].startswith("EngineError: no CUDA device to calibrate on (cuInit: CUDA_ERROR_NO_DEVICE)")


# ---- pycuda


@pytest.mark.slow
def test_pycuda_is_used_where_it_is_installed_and_leaks_nothing(play: Play, tmp_path: Path, version: str) -> None:
    outcome = play(
        """
        from trt_ptq.calibrators.tensorrt.buffers import open_buffers
        buffers = open_buffers()
        kind = type(buffers).__name__
        buffers.close()
        build = Build()
        tell(kind=kind, **build_with(EntropyCalibrator(batches(5), "model.cache", **build.known), build))
        """,
        version=version,
        memory="pycuda",
        defer=True,
    )
    assert outcome["kind"] == "PycudaBuffers"
    assert outcome["raised"] is None
    assert (tmp_path / "model.cache").read_text() == cache_text(header(version), batches(5))
    assert_nothing_leaked(outcome)


@pytest.mark.slow
def test_out_of_memory_in_pycuda_tells_what_was_asked_for_and_what_is_free(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), **build.known), build))",
        memory="pycuda",
        limit_bytes=300,
    )
    assert "asked for 2 x (image 192 bytes, mask 80 bytes) = 544 bytes" in outcome["raised"]
    assert "28 of 300 were still free" in outcome["raised"]
    assert_nothing_leaked(outcome)


@pytest.mark.slow
def test_machine_without_a_device_is_told_plainly_by_pycuda(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(5), **build.known), build))",
        memory="pycuda",
        no_device=True,
    )
    assert outcome["raised"].startswith("EngineError: no CUDA device to calibrate on (cuInit failed")


@pytest.mark.slow
def test_pycuda_context_that_the_caller_made_is_used_and_left_alone(play: Play) -> None:
    outcome = play(
        """
        import pycuda.driver as driver
        driver.init()
        context = driver.Device(0).make_context()
        build = Build()
        result = build_with(EntropyCalibrator(batches(2), **build.known), build)
        still = driver.Context.get_current() == context
        context.pop()
        tell(still=still, **result)
        """,
        memory="pycuda",
    )
    assert outcome["still"] is True
    assert outcome["raised"] is None
    assert outcome["counters"]["primary_context_users"] == 0
