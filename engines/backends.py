"""Builds an engine with the chosen backend: TensorRT or TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Callable

from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq.choices import Target
from trt_ptq.engines.building.explicit import build_explicit
from trt_ptq.engines.building.implicit import build_implicit
from trt_ptq.engines.building.rtx import build_rtx
from trt_ptq.engines.library import TensorRTLibrary, has_tensorrt, has_tensorrt_rtx, tensorrt, tensorrt_rtx
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError, UsageError


def build_trt(spec: EngineSpec) -> EngineManifest:
    """Build with TensorRT: implicit quantization with calibrated ranges, explicit otherwise.

    Raises:
        EngineError: there is no GPU, or the builder fails.
        MissingPackageError: TensorRT is not installed.
        OutputError: the engine cannot be written.
    """
    library = _tensorrt_on_gpu("trt10" if spec.implicit is not None else "trt11")
    if spec.implicit is not None:
        return build_implicit(library, spec, spec.implicit)
    return build_explicit(library, spec)


BACKENDS: dict[str, Callable[[EngineSpec], EngineManifest]] = {"trt": build_trt, "rtx": build_rtx}


def check_backend(name: str) -> None:
    """Check the name of a backend.

    Raises:
        UsageError: there is no such backend.
    """
    if name != "auto" and name not in BACKENDS:
        raise UsageError(f"`backend` must be one of auto, {', '.join(BACKENDS)}, not {name!r}")


def require_named_backend(name: str) -> None:
    """Check, before any work, that the backend `name` can build here; "auto" and "none" name none.

    Raises:
        EngineError: it needs a GPU, and there is none.
        MissingPackageError: it is not installed.
    """
    if name == "trt":
        _tensorrt_on_gpu()
    elif name == "rtx":
        tensorrt_rtx()


def choose_backend(name: str) -> str:
    """The backend for `name`: "auto" is TensorRT if it is installed and there is a GPU, otherwise RTX.

    Raises:
        UsageError: there is no such backend.
    """
    check_backend(name)
    if name != "auto":
        return name
    return "trt" if has_tensorrt() and gpu_name() is not None else "rtx"


def builder_target(name: str) -> Target:
    """The target of models that backend `name` builds: "rtx" where that is TensorRT for RTX and installed, else "trt".

    Raises:
        UsageError: there is no such backend; "none" names none.
    """
    return "rtx" if name != "none" and choose_backend(name) == "rtx" and has_tensorrt_rtx() else "trt"


def build_engine(spec: EngineSpec, backend: str = "auto") -> EngineManifest:
    """Build an engine and write it with its manifest.

    Args:
        spec: the engine to build.
        backend: "trt" (TensorRT), "rtx" (TensorRT for RTX, needs no GPU) or "auto" (see `choose_backend`).

    Returns:
        The manifest that was written beside the engine.

    Raises:
        UsageError: there is no such backend.
        EngineError: the backend needs a GPU, does not support an option, or fails to build.
        MissingPackageError: the backend is not installed.
        OutputError: the engine, its manifest or the timing cache cannot be written.
    """
    return BACKENDS[choose_backend(backend)](spec)


def _tensorrt_on_gpu(extra: str = "trt11") -> TensorRTLibrary:
    library = tensorrt(extra)
    if gpu_name() is None:
        raise EngineError(
            "TensorRT builds engines only on an NVIDIA GPU, and there is none here: use `backend=rtx`, which needs none"
        )
    return library
