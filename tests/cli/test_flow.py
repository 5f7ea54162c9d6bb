"""The commands, one after the other, as a user would type them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import trt_ptq
from tests.networks import images

SHAPE = "x=1x16x8x8:4x16x8x8:12x16x8x8"


def test_from_data_to_engine_step_by_step(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    stats, table = tmp_path / "stats.safetensors", tmp_path / "calibration.json"
    int8, engine = tmp_path / "int8.onnx", tmp_path / "model.engine"
    for command in (
        ["calibrate", cnn_path, "--data", npz_folder, "-o", stats],
        ["table", stats, "--method", "mse", "-o", table],
        ["qdq", cnn_path, "--table", table, "-o", int8],
        ["compare", cnn_path, int8, "--data", npz_folder, "--max-drop", "100%"],
        ["build", cnn_path, "--table", table, "--shape", SHAPE, "-o", engine],
    ):
        done = trt_ptq(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stderr == "" or command[0] == "build"  # which warns that so small a network is faster in FP16
    assert engine.with_name("model.engine.json").is_file()


def test_quantize_does_it_all_and_json_is_the_report(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = trt_ptq(
        "quantize", cnn_path, "--data", npz_folder, "--out", out, "--max-drop", "100%", "--backend", "none", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "report.json").read_text())


def test_quantize_starts_from_kept_statistics(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    options = ["--data", npz_folder, "--out", tmp_path / "out", "--max-drop", "100%", "--backend", "none", "--json"]
    first = json.loads(trt_ptq("quantize", cnn_path, *options).stdout)
    again = json.loads(
        trt_ptq("quantize", cnn_path, *options, "--stats", tmp_path / "out" / "stats.safetensors").stdout
    )
    assert (first["passes"], again["passes"]) == (1, 0)
    assert again["models"] == first["models"]
    assert again["verdict"]["passed"]


def test_a_loss_above_max_drop_is_exit_status_3(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    done = trt_ptq(
        "quantize", cnn_path, "--data", npz_folder, "--out", tmp_path / "out", "--max-drop", "0%", "--backend", "none"
    )
    assert done.returncode == 3
    assert "FAILED" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_users_metric_is_run(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text(
        "import numpy as np\n"
        "def accuracy(run):\n"
        "    y = run({'x': np.ones((2, 16, 8, 8), np.float32)})['y']\n"
        "    return {'accuracy': 0.5 + 0 * float(y.sum())}\n"
    )
    out = tmp_path / "out"
    done = trt_ptq(
        "quantize", cnn_path, "--data", npz_folder, "--out", out, "--eval", f"{metric}:accuracy", "--backend", "none"
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy: 0.00% loss" in done.stdout


def test_merge_refuses_what_may_hold_the_same_data(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    parts = {"a0": ["--shard", "0/2"], "b0": ["--shard", "0/3"], "whole": []}
    for name, shard in parts.items():
        done = trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", tmp_path / f"{name}.st", *shard)
        assert done.returncode == 0
    a0, b0, whole = (tmp_path / f"{name}.st" for name in parts)
    for pair in ([whole, a0], [a0, b0]):
        done = trt_ptq("merge", *pair, "-o", tmp_path / "merged.st")
        assert (done.returncode, "count twice" in done.stderr) == (2, True)
    done = trt_ptq("merge", a0, b0, "-o", a0)
    assert (done.returncode, "it is an input of this command" in done.stderr) == (2, True)


def test_shards_merge_to_the_same_bytes(cnn_path: Path, tmp_path: Path) -> None:
    samples = images(30)
    parts = {"whole": samples, "a": samples[:7], "b": samples[7:]}
    for name, part in parts.items():
        np.savez(tmp_path / f"{name}.npz", x=part)
        # One sample a batch: ONNX Runtime may round otherwise for another batch size.
        options = ["--data", tmp_path / f"{name}.npz", "--batch-size", 1, "-o", tmp_path / f"{name}.st"]
        assert trt_ptq("calibrate", cnn_path, *options).returncode == 0
    assert trt_ptq("merge", tmp_path / "b.st", tmp_path / "a.st", "-o", tmp_path / "merged.st").returncode == 0
    assert (tmp_path / "merged.st").read_bytes() == (tmp_path / "whole.st").read_bytes()


def test_caches_are_shown_compared_converted_retargeted_and_linted(tmp_path: Path) -> None:
    old, new = tmp_path / "old.cache", tmp_path / "new.cache"
    old.write_bytes(b"TRT-8601-EntropyCalibration2\nx: 3c010a14\ny: 3f800000\n")
    assert "TRT-8601-EntropyCalibration2" in trt_ptq("cache", "show", old).stdout
    assert trt_ptq("cache", "convert", old, tmp_path / "t.json").returncode == 0
    assert trt_ptq("cache", "convert", tmp_path / "t.json", new, "--trt-version", "10.1.0").returncode == 0
    assert new.read_bytes() == b"TRT-100100-EntropyCalibration2\nx: 3c010a14\ny: 3f800000\n"
    assert trt_ptq("cache", "diff", old, new).stdout == "identical: 2 ranges\n"
    assert trt_ptq("cache", "retarget", new, old, "--algorithm", "MinMaxCalibration").returncode == 0
    assert old.read_bytes().startswith(b"TRT-100100-MinMaxCalibration\n")
    assert trt_ptq("cache", "lint", old).returncode == 0
    old.write_bytes(b"TRT-8601-EntropyCalibration2\nx: 00000000\n")
    linted = trt_ptq("cache", "lint", old, "--json")
    assert linted.returncode == 3
    assert json.loads(linted.stdout)[0]["rule"] == "scale"


def test_our_own_cache_has_all_that_its_model_needs(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    statistics, cache = tmp_path / "stats.safetensors", tmp_path / "model.cache"
    assert trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", statistics).returncode == 0
    assert trt_ptq("table", statistics, "-o", cache).returncode == 0
    assert trt_ptq("cache", "lint", cache, "--model", cnn_path).stdout == f"{cache}: no problems found\n"
    cache.write_bytes(
        cache.read_bytes().splitlines(keepends=True)[0] + b"".join(b"t%d: 3c010a14\n" % i for i in range(9))
    )
    lines = trt_ptq("cache", "lint", cache, "--model", cnn_path).stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["warning missing-name", "warning unknown-name"]
    assert "9 names: t0, t1, t2, t3, t4, and 4 more: the model has no such tensor" in lines[1]


def test_a_report_is_rendered_again(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    assert trt_ptq("quantize", cnn_path, "--data", npz_folder, "--out", tmp_path, "--backend", "none").returncode in (
        0,
        3,
    )
    page = (tmp_path / "report.html").read_bytes()
    for argument in (tmp_path, tmp_path / "report.json"):
        (tmp_path / "report.html").unlink(missing_ok=True)
        assert trt_ptq("report", argument).returncode == 0
        assert (tmp_path / "report.html").read_bytes() == page


def test_doctor_names_versions() -> None:
    assert json.loads(trt_ptq("doctor", "--json").stdout)["numpy"] == np.__version__


def test_build_takes_a_quantized_model(cnn_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
    (tmp_path / "t.cache").write_text("TRT-101601-MinMaxCalibration\nx: 3c010204\nr1: 3cc18306\nf: 3d010204\n")
    int8 = tmp_path / "int8.onnx"
    assert trt_ptq("qdq", cnn_path, "--table", tmp_path / "t.cache", "-o", int8).returncode == 0
    options = ["--backend", "rtx", "--shape", SHAPE, "-o", tmp_path / "e.engine", "--json"]
    done = trt_ptq("build", int8, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["precision"] == "int8"
    assert "leave the table out" in trt_ptq("build", int8, "--table", tmp_path / "t.cache", *options).stderr


def test_qdq_excludes_nodes_by_operator(cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "t.cache").write_text("TRT-101601-MinMaxCalibration\nx: 3c010204\nr1: 3cc18306\nf: 3d010204\n")
    command = ["qdq", cnn_path, "--table", tmp_path / "t.cache", "-o", tmp_path / "q.onnx"]
    nodes = json.loads(trt_ptq(*command, "--exclude", "Conv", "--json").stdout)["nodes"]
    assert "Conv" not in {node["op_type"] for node in nodes if node["is_int8"]}
    assert "--exclude" in trt_ptq(*command, "--exclude", "Convv").stderr
