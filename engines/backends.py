"""Builds an engine with whichever backend is asked for."""

from __future__ import annotations

from collections.abc import Callable

from trt_ptq._internal.cuda import gpu_name
from trt_ptq.engines.building.explicit import build_explicit
from trt_ptq.engines.building.implicit import build_implicit
from trt_ptq.engines.building.rtx import build_rtx
from trt_ptq.engines.library import has_tensorrt, tensorrt
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError, UsageError


def build_trt(spec: EngineSpec) -> EngineManifest:
    """Build with TensorRT: implicit with calibrated ranges, explicit without.

    Raises:
        EngineError: there is no GPU, or the builder refuses.
        MissingPackageError: TensorRT is not installed.
        OutputError: the engine cannot be written.
    """
    library = tensorrt("trt10" if spec.implicit is not None else "trt11")
    if gpu_name() is None:
        raise EngineError(
            "TensorRT builds only where an NVIDIA GPU is, and there is none here: --backend rtx needs none"
        )
    if spec.implicit is not None:
        return build_implicit(library, spec, spec.implicit)
    return build_explicit(library, spec)


BACKENDS: dict[str, Callable[[EngineSpec], EngineManifest]] = {"trt": build_trt, "rtx": build_rtx}


def check_backend(name: str) -> None:
    """Make sure that there is a backend called `name`.

    Raises:
        UsageError: there is none.
    """
    if name != "auto" and name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}: choose one of auto, {', '.join(BACKENDS)}")


def choose_backend(name: str) -> str:
    """The backend that `name` means here: "auto" is TensorRT where it is installed and finds a GPU, else RTX.

    Raises:
        UsageError: unknown backend.
    """
    check_backend(name)
    if name != "auto":
        return name
    return "trt" if has_tensorrt() and gpu_name() is not None else "rtx"


def build_engine(spec: EngineSpec, backend: str = "auto") -> EngineManifest:
    """Build the engine of `spec` and write it with its manifest; "auto" is the best backend there is here.

    Raises:
        UsageError: unknown backend.
        EngineError, MissingPackageError, OutputError: see the backend.
    """
    return BACKENDS[choose_backend(backend)](spec)
