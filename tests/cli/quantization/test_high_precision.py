"""--high-precision: what runs beside INT8."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.cli.run import trt_ptq


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.cache"
    path.write_text("TRT-101601-MinMaxCalibration\nx: 3c010204\nr1: 3cc18306\nf: 3d010204\n")
    return path


def weight_types(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


def test_qdq_without_data_leaves_the_rest_in_fp32(cnn_path: Path, table: Path, tmp_path: Path) -> None:
    done = trt_ptq("qdq", cnn_path, "--table", table, "-o", tmp_path / "q.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the rest in FP32" in done.stdout
    assert weight_types(tmp_path / "q.onnx") == {TensorProto.FLOAT, TensorProto.INT8}


def test_qdq_with_data_gives_an_fp16_rest(cnn_path: Path, table: Path, npz_folder: Path, tmp_path: Path) -> None:
    done = trt_ptq("qdq", cnn_path, "--table", table, "-o", tmp_path / "q.onnx", "--data", npz_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the rest in FP16" in done.stdout
    # float32: the scale of the input's quantizer alone
    singles = [
        tensor.name
        for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    ]
    assert singles == ["x.qdq.scale"]


def test_fp16_without_data_is_warned_of(cnn_path: Path, table: Path, tmp_path: Path) -> None:
    done = trt_ptq("qdq", cnn_path, "--table", table, "-o", tmp_path / "q.onnx", "--high-precision", "fp16")
    assert done.returncode == 0
    assert "no activations were measured" in " ".join(done.stderr.split())


def test_what_overflows_is_named(cnn_path: Path, table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "large.npz", x=np.full((16, 16, 8, 8), 1e5, np.float32))
    command = ["qdq", cnn_path, "--table", table, "-o", tmp_path / "q.onnx", "--data", tmp_path / "large.npz", "--json"]
    fp32_nodes = json.loads(trt_ptq(*command).stdout)["fp32_nodes"]
    assert {"c1", "r1", "c2", "a", "r2"} <= {node["output"] for node in fp32_nodes}
    assert {node["cause"] for node in fp32_nodes} == {"range"}


@pytest.mark.parametrize("command", ["qdq", "quantize"])
def test_another_precision_is_refused(command: str, cnn_path: Path, table: Path, npz_folder: Path) -> None:
    rest = ["--table", table] if command == "qdq" else ["--data", npz_folder]
    done = trt_ptq(command, cnn_path, *rest, "--high-precision", "bf16")
    assert done.returncode == 2
    assert "'--high-precision': 'bf16' is not one of 'fp16', 'fp32'" in " ".join(done.stderr.split())


@pytest.mark.parametrize(("precision", "type_"), [("fp16", TensorProto.FLOAT16), ("fp32", TensorProto.FLOAT)])
def test_quantize_takes_either(precision: str, type_: int, cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [
        "--data",
        npz_folder,
        "--out",
        out,
        "--max-drop",
        "100%",
        "--backend",
        "none",
        "--high-precision",
        precision,
        "--json",
    ]
    done = trt_ptq("quantize", cnn_path, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["high_precision"] == precision
    bias = next(tensor for tensor in onnx.load(out / "model.int8.onnx").graph.initializer if tensor.name == "b1")
    assert bias.data_type == type_
