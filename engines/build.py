"""Builds an engine with whichever backend is asked for."""

from __future__ import annotations

from collections.abc import Callable

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.engines.tensorrt_rtx import build_rtx

BACKENDS: dict[str, Callable[[EngineSpec], EngineManifest]] = {"rtx": build_rtx}


def check_backend(name: str) -> None:
    """Make sure that there is a backend called `name`.

    Raises:
        UsageError: there is none.
    """
    if name != "auto" and name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}: choose one of auto, {', '.join(BACKENDS)}")


def build_engine(spec: EngineSpec, backend: str = "auto") -> EngineManifest:
    """Build the engine of `spec` and write it with its manifest; "auto" is the best backend there is here.

    Raises:
        UsageError: unknown backend.
        EngineError, MissingPackageError, OutputError: see the backend.
    """
    check_backend(backend)
    return BACKENDS["rtx" if backend == "auto" else backend](spec)
