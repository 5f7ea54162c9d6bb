"""trt-ptq doctor"""

from __future__ import annotations

from importlib import metadata

from trt_ptq.cli import console, options
from trt_ptq.version import __version__

_NEEDED = ("numpy", "onnx", "onnxruntime", "onnx-ir", "numba", "safetensors", "pydantic", "polygraphy")
_OPTIONAL = {
    "tensorrt-rtx-cu12": ("rtx", "builds engines, without a GPU"),
    "pillow": ("images", "folders of images"),
}


def doctor(json: options.Json = False) -> None:
    """Say what is installed, and what to install for the rest.

    Example: trt-ptq doctor
    """
    found = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    if json:
        console.print_json({"trt-ptq": __version__, **found})
        return
    rows = [["trt-ptq", __version__, ""]]
    for name, version in found.items():
        extra, purpose = _OPTIONAL.get(name, ("", ""))
        missing = f'{purpose}: pip install "trt-ptq[{extra}]"' if version is None else purpose
        rows.append([name, version or "not installed", missing])
    console.print_table(["package", "version", ""], rows)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
