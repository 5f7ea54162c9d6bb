"""What goes to standard output: text that says what was given, JSON that any parser reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.run import trt_ptq
from trt_ptq.cli.language.language_report import show_language
from trt_ptq.language_models.judging.agreement import PositionAgreement
from trt_ptq.language_models.judging.judgement import LanguageJudgement


def _strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_of_a_perfect_match_has_no_infinity_that_json_lacks(cnn_path: Path, npz_folder: Path) -> None:
    done = trt_ptq("compare", cnn_path, cnn_path, "--data", npz_folder, "--json")
    assert _strictly(done.stdout)["comparison"]["outputs"]["y"]["sqnr_db"] == "Infinity"


def test_json_stays_alone_when_a_users_function_prints(cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(
        "import numpy as np\n"
        "print('on import')\n"
        "def f():\n"
        "    print('in the middle')\n"
        "    yield {'x': np.ones((2, 16, 8, 8), np.float32)}\n"
    )
    out = tmp_path / "s.safetensors"
    done = trt_ptq("calibrate", cnn_path, "--data", f"{tmp_path}/loader.py:f", "-o", out, "--json")
    assert _strictly(done.stdout)["data"]["samples"] == 2
    assert "on import" in done.stderr
    assert "in the middle" in done.stderr


def test_brackets_in_a_file_name_are_shown_as_they_are(tmp_path: Path) -> None:
    cache = Path("[") / "red] [bold].cache"  # to Rich, [/red] closes what was never opened
    (tmp_path / "[").mkdir()
    (tmp_path / cache).write_text("TRT-101601-EntropyCalibration2\nx: 3c010a14\n")
    done = trt_ptq("cache", "show", cache, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[/red] [bold].cache" in " ".join(done.stdout.split())


def test_the_size_of_a_model_counts_its_external_weights(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.onnx"
    onnx.save(onnx.load(cnn_path), split, save_as_external_data=True, location="split.data", size_threshold=0)
    out = tmp_path / "out"
    done = trt_ptq(
        "quantize", split, "--data", npz_folder, "--out", out, "--max-drop", "100%", "--backend", "none", "--json"
    )
    fp32 = _strictly(done.stdout)["models"][0]
    assert fp32["size_bytes"] == split.stat().st_size + (tmp_path / "split.data").stat().st_size


def test_the_worst_of_several_outputs_is_named(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    two = onnx.load(cnn_path)
    two.graph.output.append(onnx.helper.make_tensor_value_info("c1", onnx.TensorProto.FLOAT, None))
    path, options = tmp_path / "two.onnx", ("--max-drop", "100%", "--backend", "none", "--data", npz_folder)
    onnx.save(two, path)
    done = trt_ptq("quantize", path, *options, "--out", tmp_path / "out")
    int8 = next(line for line in done.stdout.splitlines() if "INT8 " in line and "│" in line)
    assert any(cell.strip() in ("y", "c1") for cell in int8.split("│")), done.stdout


def test_a_closed_pipe_ends_the_command_silently(cnn_path: Path, npz_folder: Path) -> None:
    model, data = str(cnn_path), str(npz_folder)
    command = [sys.executable, "-m", "trt_ptq", "compare", model, model, "--data", data, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(cnn_path: Path, npz_folder: Path) -> None:
    model, data = str(cnn_path), str(npz_folder)
    command = [sys.executable, "-m", "trt_ptq", "compare", model, model, "--data", data, "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: cannot write to standard output: No space left on device\n")


def test_names_do_not_become_emoji(tmp_path: Path) -> None:
    assert ":zero:" in trt_ptq("lint", tmp_path / "a:zero:.onnx").stderr


def test_closed_output_is_no_error(tmp_path: Path) -> None:
    cache = tmp_path / "x.cache"
    cache.write_text("TRT-101601-EntropyCalibration2\nx: 3c010a14\n")
    shell = f'"{sys.executable}" -m trt_ptq cache show "{cache}" >&-'
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_small_divergences_of_a_language_model_keep_their_digits(capsys: pytest.CaptureFixture[str]) -> None:
    show_language(LanguageJudgement({"int8": [PositionAgreement(0, 1, 1.0, 1.2345e-6, 16)]}, []))
    assert "1.23e-06" in capsys.readouterr().out
