"""Optional packages: there, or the exact command that brings them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.errors import MissingPackageError


def test_gives_the_module() -> None:
    assert require("json", extra="demo") is json


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("tensorrt", "trt10"),
        ("tensorrt_rtx", "rtx"),
        ("pycuda.driver", "trt10"),
        ("ray", "ray"),
        ("PIL.Image", "images"),
    ],
)
def test_a_missing_package_is_reported_with_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError) as caught:
        require(module, extra)
    assert str(caught.value).startswith(f"{module} is required")
    assert str(caught.value).endswith(f': pip install "trt-ptq[{extra}]"')


@pytest.mark.parametrize(
    "failure",
    ["import no_such_library_of_it", "import ctypes; ctypes.CDLL('libnosuch.so')", "raise ImportError('a\\nb')"],
)
def test_a_package_that_cannot_load_its_library_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    (tmp_path / "half_installed_package.py").write_text(failure)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match="could not be imported") as caught:
        require("half_installed_package", extra="trt10")
    assert "\n" not in str(caught.value)
