"""`trt-ptq doctor`, which is also the health check of the images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import ROOT, trt_ptq, trt_ptq_process
from trt_ptq.errors import UsageError


def test_versions_are_those_installed() -> None:
    done = trt_ptq("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["numpy"] == np.__version__
    assert found["broken"] == {}


def test_what_is_missing_comes_with_the_command_that_installs_it() -> None:
    assert '"trt-ptq[pycuda]"' in trt_ptq("doctor").stdout


def test_a_package_that_is_installed_but_does_not_load_is_named_and_fails_the_health_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text(
        "raise ImportError('libjpeg.so.62: cannot open shared object file')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    done = trt_ptq_process("doctor")
    assert done.returncode == 1
    assert done.stderr == ("error: pillow: fails to load: ImportError: libjpeg.so.62: cannot open shared object file\n")


def test_two_packages_of_onnx_runtime_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def clash() -> None:
        raise UsageError("onnxruntime-gpu and onnxruntime are installed together")

    monkeypatch.setattr("trt_ptq.cli.commands.tools.doctor.check_onnxruntime", clash)
    done = trt_ptq("doctor", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["broken"] == {
        "onnxruntime": "onnxruntime-gpu and onnxruntime are installed together"
    }
