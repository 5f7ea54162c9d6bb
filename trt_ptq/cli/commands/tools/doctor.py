"""trt-ptq doctor: the installed packages."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from importlib import metadata

from trt_ptq._internal.packages.onnxruntime_check import check_onnxruntime
from trt_ptq.cli import console, options
from trt_ptq.errors import UsageError
from trt_ptq.version import __version__

_UNHEALTHY = 1
_REQUIRED = {
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnx-ir": "onnx_ir",
    "numba": "numba",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "polygraphy": "polygraphy",
    "jinja2": "jinja2",
}
_OPTIONAL = {  # package: module, extra, what it is for
    "tensorrt-rtx-cu12": ("tensorrt_rtx", "rtx", "builds engines, without a GPU"),
    "tensorrt": ("tensorrt", "trt11", "builds engines on a GPU; extra trt10 for INT8 calibrators"),
    "pycuda": ("pycuda.driver", "pycuda", "memory on the GPU"),
    "pillow": ("PIL.Image", "images", "folders of images"),
}
_DISTRIBUTIONS = {"tensorrt": ("tensorrt-cu12", "tensorrt-cu13", "tensorrt")}  # NVIDIA's images have the last


def doctor(json: options.Json = False) -> None:
    """Check which packages are installed, and print what to install for the rest.

    Exit status 1 if a required package is missing or fails to load.

    Example: trt-ptq doctor
    """
    modules = {**_REQUIRED, **{name: module for name, (module, _, _) in _OPTIONAL.items()}}
    versions = {name: _version(name) for name in modules}
    broken = {
        name: reason
        for name, module in modules.items()
        if (versions[name] is not None or name in _REQUIRED) and (reason := _load_error(module))
    }
    try:
        check_onnxruntime()
    except UsageError as error:
        broken["onnxruntime"] = str(error)
    if json:
        console.print_json({"trt-ptq": __version__, **versions, "broken": broken})
    else:
        rows = [["trt-ptq", __version__, ""]]
        rows += [[name, version or "not installed", _note(name, version)] for name, version in versions.items()]
        console.print_table(["package", "version", ""], rows)
    for name, reason in broken.items():
        console.fail(f"{name}: {reason}")
    if broken:
        sys.exit(_UNHEALTHY)


def _version(package: str) -> str | None:
    for distribution in _DISTRIBUTIONS.get(package, (package,)):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return None


def _load_error(module: str) -> str | None:
    """Return why `module` cannot be imported, or None."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary fails in ways of its own
        return f"fails to load: {type(error).__name__}: {error}"
    return None


def _note(package: str, version: str | None) -> str:
    if package not in _OPTIONAL:
        return ""
    _, extra, purpose = _OPTIONAL[package]
    return purpose if version is not None else f'{purpose}: pip install "trt-ptq[{extra}]"'
