"""Stand-in: our calibrators, called by the genuine TensorRT bindings, when nothing fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.calibrators.tensorrt.builds.building import batches
from tests.calibrators.tensorrt.builds.leaks import assert_nothing_leaked
from tests.calibrators.tensorrt.builds.tables import cache_text, header
from tests.calibrators.tensorrt.conftest import LATEST, Play


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


def test_batches_arrive_complete_and_in_order_when_copies_are_deferred(play: Play) -> None:
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


def test_pointers_follow_the_order_of_the_requested_names(play: Play) -> None:
    outcome = play(
        "build = Build(); tell(**build_with(EntropyCalibrator(batches(3), **build.known), build))", reverse_names=True
    )
    assert outcome["plans"][0]["table"] == cache_text(header(LATEST), batches(3))


def test_integer_inputs_are_fed_as_they_are(play: Play, version: str) -> None:
    outcome = play(
        """
        import ctypes
        build = Build(types={"mask": "int32"})
        fed = [{**feeds, "mask": np.arange(20, dtype=np.int32).reshape(4, 5)} for feeds in batches(2)]
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


def test_progress_is_shown_by_the_callback(play: Play) -> None:
    outcome = play(
        """
        shown = []

        def progress(batches, description, total):
            shown.append([description, total])
            for item in batches:
                shown.append(item.origin)
                yield item

        build = Build()
        result = build_with(EntropyCalibrator(batches(2), progress=progress, **build.known), build)
        tell(shown=shown, **result)
        """
    )
    assert outcome["shown"] == [["Calibrating", 2], "list, batch 0", "list, batch 1"]
