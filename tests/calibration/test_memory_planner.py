"""Several passes over the data, where memory does not allow one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.calibration.test_collector import Given
from tests.networks import images
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.memory_planner import plan_passes
from trt_ptq.calibration.observed import buffer_memory, observed_sessions
from trt_ptq.calibration.observed.buffer_memory import BufferMemory
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.errors import DataError, UsageError
from trt_ptq.onnx_io.load import Model


def test_several_passes_measure_the_same_as_one(cnn: Model) -> None:
    calibration_tensors = select_calibration_tensors(cnn, ["all"])
    source = Given([images(4, seed=seed) for seed in range(3)])
    each = tuple((name,) for name in calibration_tensors.tensors)
    assert collect_statistics(cnn, source, calibration_tensors, passes=each) == collect_statistics(
        cnn, source, calibration_tensors
    )


def test_a_high_limit_needs_one_pass(cnn: Model) -> None:
    calibration_tensors = select_calibration_tensors(cnn)
    assert plan_passes(cnn, calibration_tensors, Given([images(4)]), 10**12) == (calibration_tensors.tensors,)


def test_a_limit_that_no_pass_can_keep_is_refused(cnn: Model) -> None:
    with pytest.raises(UsageError, match=r"`memory_limit=10MB` is too low: with batch 0 the process already takes \d+"):
        plan_passes(cnn, select_calibration_tensors(cnn), Given([images(4)]), 10_000_000)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not report the peak of a part of the run")
def test_memory_that_was_freed_before_does_not_count(cnn: Model) -> None:
    def needed() -> int:
        with pytest.raises(UsageError) as caught:
            plan_passes(cnn, select_calibration_tensors(cnn), Given([images(4)]), 10_000_000)
        advised = re.search(r"raise it to (\d+)MB", str(caught.value))
        assert advised
        return int(advised[1])

    first = needed()
    earlier = np.ones(400_000_000, np.uint8)
    del earlier
    assert needed() < first + 100


def test_tensors_that_are_not_needed_together_share_memory(cnn: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_memory, "usable_cores", lambda: 2)  # tensors that a segment has at least
    sizes = {"c1": 7, "r1": 7, "c2": 7, "a": 7, "r2": 7}
    assert BufferMemory(cnn, sizes).bytes_for(["c1", "r1"]) == 14
    assert BufferMemory(cnn, sizes).bytes_for(sizes) == 21  # the residual r1 stays until it is added
    assert BufferMemory(cnn, {**sizes, "x": 0}).bytes_for(["x"]) == 0


def test_tensors_of_a_model_that_runs_as_a_whole_share_no_memory(cnn: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed_sessions, "_MAX_WEIGHTS", 0)
    sizes = {"c1": 7, "r1": 7, "c2": 7, "a": 7, "r2": 7}
    assert BufferMemory(cnn, sizes).bytes_for(sizes) == 35


def test_a_plan_needs_data(cnn: Model) -> None:
    with pytest.raises(DataError, match="the data has no batches"):
        plan_passes(cnn, select_calibration_tensors(cnn), Given([]), 10**12)


def test_data_that_changes_between_passes_is_refused(cnn: Model) -> None:
    class Fresh(Given):
        def __iter__(self):  # type: ignore[no-untyped-def]
            object.__setattr__(self, "arrays", [array + 1 for array in self.arrays])
            return super().__iter__()

    calibration_tensors = select_calibration_tensors(cnn)
    with pytest.raises(DataError, match=r"not the same in pass 2 \(4 samples\) as in pass 1 \(4\)"):
        collect_statistics(
            cnn,
            Fresh([images(4)]),
            calibration_tensors,
            passes=(calibration_tensors.tensors[:1], calibration_tensors.tensors[1:]),
        )


# VmHWM, as ru_maxrss starts with the memory of the process that started this one.
_PEAK = """
import sys
from pathlib import Path
import numpy as np
from trt_ptq.types import Batch
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.measurements.magnitudes import measure_amax
from trt_ptq.calibration.memory_planner import plan_passes
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.ort_session import limited_memory
from trt_ptq.calibration.tensors import select_calibration_tensors

class Source:
    total = 2
    def __iter__(self):
        for seed in range(2):
            yield Batch({"x": np.random.default_rng(seed).standard_normal((20000, 16, 8, 8), np.float32)}, "batch")

model = load_model(Path(sys.argv[1]))
calibration_tensors = select_calibration_tensors(model, ["all"])
limit = int(sys.argv[2])
with limited_memory(limit or None):
    passes = plan_passes(model, calibration_tensors, Source(), limit) if limit else (calibration_tensors.tensors,)
    statistics = collect_statistics(model, Source(), calibration_tensors, passes=passes)
    measure_amax(model, Source(), limit)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(passes), int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("room_megabytes", "expected_passes"), [(90, {2, 3}), (190, {1})])
def test_the_process_stays_below_the_limit(cnn_path: Path, room_megabytes: int, expected_passes: set[int]) -> None:
    """With room for one or two more of the five tensors of 82 MB; one core needs less than two."""

    def peak(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _PEAK, str(cnn_path), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    advised = re.search(r"raise it to (\d+)MB", peak(10_000_000).stderr)
    assert advised
    limit = (int(advised[1]) + room_megabytes) * 1_000_000
    done = peak(limit)
    assert done.returncode == 0, done.stderr
    passes, used = map(int, done.stdout.split())
    assert passes in expected_passes
    assert used <= limit
