"""Several ONNX Runtime packages in one environment."""

from __future__ import annotations

from importlib import metadata

import pytest

from trt_ptq._internal.packages.onnxruntime_check import check_onnxruntime
from trt_ptq.errors import UsageError


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make exactly `packages` look installed."""

    def distribution(name: str) -> None:
        if name not in packages:
            raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_this_environment_passes() -> None:
    check_onnxruntime()


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime-gpu"])
def test_one_package_passes(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    install(monkeypatch, package)
    check_onnxruntime()


def test_two_packages_are_an_error_that_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(UsageError) as error:
        check_onnxruntime()
    assert "pip uninstall onnxruntime-gpu onnxruntime && pip install onnxruntime-gpu" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_onnxruntime_is_not_this_checks_business(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    check_onnxruntime()
