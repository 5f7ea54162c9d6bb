"""Help and errors of the command line itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run import trt_ptq, trt_ptq_process
from trt_ptq.cli.lazy_group import COMMANDS, load_command, reflow

CACHE_COMMANDS = ("show", "diff", "convert", "extract", "retarget", "lint")
EVERY = [*((name,) for name in COMMANDS if name != "cache"), *(("cache", name) for name in CACHE_COMMANDS)]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_help_fits_80_columns_and_ends_with_an_example(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = trt_ptq(*command, "--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout
    assert "--json" in done.stdout
    description = done.stdout[: done.stdout.index("╭")]
    assert f" Example: trt-ptq {' '.join(command)} " in " ".join(description.split()) + " "


def test_the_list_of_commands_needs_none_of_them() -> None:
    done = trt_ptq("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)


def test_options_stand_in_groups() -> None:
    panels = {parameter.rich_help_panel for parameter in load_command("quantize").params}
    assert panels >= {"Data", "Calibration", "Accuracy", "Engine", "Output"}


def test_paragraphs_have_no_line_breaks() -> None:
    assert reflow("One\n    two.\n\n    Three\n    four.\n") == "One two.\n\nThree four."


def test_a_misspelt_command_comes_with_the_nearest() -> None:
    assert "'quantize'" in trt_ptq("quantise").stderr


@pytest.mark.slow
def test_completion_knows_commands_and_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TRT_PTQ_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "trt-ptq qua")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert trt_ptq_process().stdout.split() == ["quantize"]
    monkeypatch.setenv("COMP_WORDS", "trt-ptq quantize --backend r")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert trt_ptq_process().stdout.split() == ["rtx"]


@pytest.mark.parametrize(
    "arguments",
    [("calibrate", "none.onnx", "--data", "d"), ("quantize", "m.onnx", "--speed", "11")],
    ids=["input", "use"],
)
def test_an_error_is_one_json_document_with_json(arguments: tuple[str, ...]) -> None:
    done = trt_ptq(*arguments, "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document == {"error": done.stderr.removeprefix("error: ").rstrip("\n"), "exit_status": 2}


def test_quiet_prints_errors_only(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats.safetensors"
    done = trt_ptq("--quiet", "calibrate", cnn_path, "--data", npz_folder, "-o", stats)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert trt_ptq("--quiet", "table", stats).stdout == ""
    assert trt_ptq("table", stats, "--quiet").stdout == ""
    assert trt_ptq("--quiet", "table", tmp_path / "none").stderr.startswith("error: ")


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("cache", "show", "x.cache")])
def test_starting_up_imports_no_model_code(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.cache").write_text("TRT-101601-EntropyCalibration2\nx: 3c010a14\n")
    code = (
        "import sys\n"
        "from trt_ptq.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'numba', 'onnx', 'onnx_ir', 'onnxruntime', 'torch'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
