"""ONNX Runtime comes in several packages that all write the folder `onnxruntime`; only one may be installed."""

from __future__ import annotations

from importlib import metadata

from trt_ptq.errors import UsageError

# In the order in which we recommend them: who installed another one than the first wanted its devices.
_PACKAGES = ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime")


def check_onnxruntime() -> None:
    """Check that at most one ONNX Runtime package is installed.

    Raises:
        UsageError: several are, so the files of one have overwritten those of another.
    """
    installed = [package for package in _PACKAGES if _is_installed(package)]
    if len(installed) > 1:
        raise UsageError(
            f"{' and '.join(installed)} are installed together and overwrite each other's files: "
            f"pip uninstall {' '.join(installed)} && pip install {installed[0]}"
        )


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True
