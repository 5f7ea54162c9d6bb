"""`trt-ptq lint` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.lint.sketch import Sketch
from tests.networks import residual_cnn
from trt_ptq.cli import main

Run = Callable[..., tuple[int, str, str]]
SOUND = Path(__file__).parents[2] / "files" / "qdq" / "tiny.modelopt-0.47.0.fp32.onnx"


@pytest.fixture
def trt_ptq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; gives exit status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["trt-ptq", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A model with a zero point (an error) and weights with one scale (warnings), at seven convolutions."""
    sketch = Sketch()
    value = sketch.pair("x", 0.02, np.int8(3))
    for _ in range(7):
        value = sketch.conv(value, sketch.dequantize(sketch.constant(np.ones((16, 16, 3, 3), np.int8)), 0.01))
        value = sketch.pair(value)
    return sketch.save(tmp_path / "faulty.onnx", sketch.node("Relu", value))


def test_a_sound_model_says_so_and_ends_with_0(trt_ptq: Run) -> None:
    assert trt_ptq("lint", SOUND) == (0, f"{SOUND}: no problems found\n", "")


def test_an_error_ends_with_3(trt_ptq: Run, faulty: Path) -> None:
    status, out, _ = trt_ptq("lint", faulty)
    assert status == 3
    assert out.endswith("faulty.onnx: 1 error, 8 warnings\n")


def test_warnings_alone_end_with_0(trt_ptq: Run, tmp_path: Path) -> None:
    sketch = Sketch()
    status, out, _ = trt_ptq("lint", sketch.save(tmp_path / "m.onnx", sketch.conv("x")))
    assert status == 0
    assert out.endswith("m.onnx: 1 warning\n")


def test_people_get_a_table_and_below_it_effect_and_remedy_once_for_each_rule(trt_ptq: Run, faulty: Path) -> None:
    _, out, _ = trt_ptq("lint", faulty)
    assert "zero point 3" in out
    assert out.count("error zero-point: TensorRT refuses the model") == 1
    assert out.count("warning weight-per-tensor: less accurate") == 1
    assert "Remedy: use one scale per output channel" in out


def test_errors_come_first_and_long_lists_are_cut(trt_ptq: Run, faulty: Path) -> None:
    lines = [line for line in trt_ptq("lint", faulty)[1].splitlines() if line.startswith("│")]
    assert "zero-point" in lines[0]
    assert any("... 2 more (--json)" in line for line in lines)


def test_programs_get_all_findings(trt_ptq: Run, faulty: Path) -> None:
    status, out, _ = trt_ptq("lint", faulty, "--json")
    findings = json.loads(out)
    assert (status, len(findings)) == (3, 9)
    assert findings[0] == {
        "severity": "error",
        "rule": "zero-point",
        "node": "QuantizeLinear0",
        "detail": "zero point 3",
        "effect": "TensorRT refuses the model: it supports only a zero point of 0",
        "remedy": "quantize symmetrically (ONNX Runtime: ActivationSymmetric and WeightSymmetric true)",
    }


def test_a_sound_model_gives_programs_an_empty_list(trt_ptq: Run) -> None:
    assert trt_ptq("lint", SOUND, "--json") == (0, "[]\n", "")


def test_statistics_of_the_float_model_judge_its_ranges(trt_ptq: Run, tmp_path: Path) -> None:
    model = residual_cnn(tmp_path / "cnn.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((4, 16, 8, 8), np.float32))
    stats, table, int8 = (tmp_path / name for name in ("stats.safetensors", "wide.cache", "int8.onnx"))
    table.write_text("TRT-101601-EntropyCalibration2\nx: 3f800000\n")  # scale 1: range 127, of values up to 1
    assert trt_ptq("calibrate", model, "--data", tmp_path / "data.npz", "-o", stats)[0] == 0
    assert trt_ptq("qdq", model, "--table", table, "-o", int8)[0] == 0
    status, out, _ = trt_ptq("lint", int8, "--stats", stats)
    assert status == 0
    assert "range 127 of 'x', whose largest" in " ".join(out.replace("│", " ").split())


def test_a_float_model_is_refused_in_one_line(trt_ptq: Run, tmp_path: Path) -> None:
    model = residual_cnn(tmp_path / "cnn.onnx")
    message = f"error: {model}: nothing in it is quantized: pass a Q/DQ model (trt-ptq qdq creates one)\n"
    assert trt_ptq("lint", model) == (2, "", message)


def test_statistics_that_are_none_are_refused_in_one_line(trt_ptq: Run) -> None:
    status, out, err = trt_ptq("lint", SOUND, "--stats", SOUND)
    assert (status, out, err.count("\n")) == (2, "", 1)
