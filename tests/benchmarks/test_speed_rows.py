"""The benchmark's code on a tiny network: that it measures what it says, never how fast."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import collecting, memory, modelopt, onnxruntime_calibrators, ranges
from benchmarks.speed.models import Feeds
from benchmarks.speed.peer import PYTHON
from benchmarks.speed.turns import in_turn, median_ratio
from tests.networks import CHANNELS, images, residual_cnn
from trt_ptq.onnx_io.load import load_model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual_cnn(tmp_path_factory.mktemp("network") / "cnn.onnx")


@pytest.fixture(scope="module")
def batches() -> list[Feeds]:
    return [{"x": images(4, seed)} for seed in range(3)]


def test_jobs_are_run_in_turn_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def job(name: str) -> float:
        order.append(name)
        return float(len(order))

    seconds = in_turn({"a": lambda: job("a"), "b": lambda: job("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_ratios_are_taken_round_by_round() -> None:
    assert median_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == 3.0


def test_a_run_over_two_batches_is_taken_off() -> None:
    seconds = {"collect_two": [1.0, 9.0, 2.0], "collect": [5.0, 6.0, 7.0]}
    assert collecting.beyond_two(seconds) == [3.0, 4.0, 5.0]


def test_collecting_is_compared_with_inference_of_the_same_batches(path: Path, batches: list[Feeds]) -> None:
    row = collecting.against_inference("tiny", 2.0, path, collecting.fused, batches, rounds=1)
    assert row.figures["samples"] == 4
    assert row.met == (row.figures["ratio"] <= 2.0)


def test_operator_tensors_are_all_float_inputs_and_outputs(path: Path) -> None:
    assert collecting.operator_tensors(load_model(path)) == ["x", "c1", "r1", "c2", "a", "f", "y"]


@pytest.mark.parametrize("method", ["MinMax", "Entropy", "Percentile"])
def test_onnxruntime_measures_the_very_same_tensors(path: Path, batches: list[Feeds], method: str) -> None:
    theirs = onnxruntime_calibrators.collect_theirs(method, path, batches)
    assert theirs == onnxruntime_calibrators.collect_ours(path, batches)


def test_a_row_without_a_target_is_neither_met_nor_missed(path: Path, batches: list[Feeds]) -> None:
    row = onnxruntime_calibrators.against_calibrator("MinMax", None, path, batches, rounds=1)
    assert (row.met, row.target) == (None, "")


def test_without_modelopt_there_is_a_reason_and_no_number(path: Path, batches: list[Feeds]) -> None:
    row = modelopt.against_modelopt("entropy", "entropy", 4, path, batches, rounds=1, python=Path("/no/python"))
    assert (row.met, row.figures) == (None, {})
    assert row.measured.startswith("not measured: modelopt is not installed: no /no/python")


def test_a_modelopt_that_fails_is_told_with_its_last_words(path: Path, batches: list[Feeds]) -> None:
    row = modelopt.against_modelopt("entropy", "entropy", 4, path, batches, rounds=1, python=Path(sys.executable))
    assert row.measured == "not measured: modelopt fails: ModuleNotFoundError: No module named 'modelopt'"


def test_our_side_of_modelopts_work_ends_in_a_quantized_file(path: Path, batches: list[Feeds], tmp_path: Path) -> None:
    inserted = modelopt.quantize_ours(path, batches, "entropy", tmp_path / "int8.onnx")
    assert inserted > 0
    assert (tmp_path / "int8.onnx").is_file()


@pytest.mark.parametrize("tool", ["ours", "MinMax", "Entropy"])
def test_peak_memory_is_of_a_fresh_process(path: Path, tool: str) -> None:
    ballast = np.ones(100_000_000)
    peak = memory.fresh_peak(tool, path, samples=8, batch=4, shape=(CHANNELS, 8, 8))
    assert 50_000_000 < peak < ballast.nbytes


def test_flat_means_within_five_percent() -> None:
    assert memory.flat("tiny", {16: 100_000_000, 64: 104_000_000}).met
    assert not memory.flat("tiny", {16: 100_000_000, 64: 106_000_000}).met


def test_ranges_are_searched_in_full_histograms() -> None:
    assert ranges.entropy_search(tensors=2, rounds=1).figures["one_by_one_ms"] > 0
    assert ranges.large_statistics(tensors=2, rounds=1).figures["seconds"].keys() == {
        "entropy",
        "minmax",
        "mse",
        "percentile",
    }


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="modelopt is not installed: `make bench` makes .venv-peers")
def test_modelopt_quantizes_in_its_own_process(path: Path, batches: list[Feeds]) -> None:
    row = modelopt.against_modelopt("max", "minmax", None, path, batches, rounds=1)
    assert row.figures["ratio"] > 0
    assert row.figures["dequantize_nodes"]["theirs"] > 0


@pytest.mark.slow
def test_the_whole_job_leaves_its_files(path: Path, batches: list[Feeds]) -> None:
    assert {"stats.safetensors", "model.int8.onnx", "report.html"} <= {
        *modelopt.whole("tiny", path, batches).figures["files"]
    }
