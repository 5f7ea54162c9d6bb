"""From an engine file to TensorRT's engine, with the plain reason where that cannot be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_ptq._internal.cuda import gpu_name
from trt_ptq.engines.library import BuilderLog, TensorRTLibrary, tensorrt, tensorrt_rtx
from trt_ptq.engines.manifest import EngineManifest, manifest_path, read_manifest
from trt_ptq.errors import EngineError


@dataclass(frozen=True)
class LoadedEngine:
    """TensorRT's `engine`, and what must outlive it; `manifest` is None for an engine that was not built by us."""

    path: Path
    library: TensorRTLibrary
    manifest: EngineManifest | None
    gpu: str
    engine: Any
    builder_log: BuilderLog
    runtime: Any


def load_engine(path: Path) -> LoadedEngine:
    """Load an engine with the TensorRT that its manifest names; without a manifest, with TensorRT.

    Raises:
        EngineError: no such file, not the file of its manifest, no GPU, of another TensorRT, or refused by TensorRT;
            with its own first complaint.
        MissingPackageError: the TensorRT that it needs is not installed.
    """
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read engine {path}: {error.strerror}") from error
    manifest = read_manifest(path) if manifest_path(path).exists() else None
    if manifest is not None and manifest.sha256 != hashlib.sha256(plan).hexdigest():
        raise EngineError(f"{path}: not the file that {manifest_path(path).name} describes: damaged, or replaced")
    gpu = gpu_name()
    if gpu is None:
        raise EngineError(f"{path}: an engine runs only on an NVIDIA GPU, and there is none here")
    library = tensorrt_rtx() if manifest is not None and manifest.backend == "tensorrt-rtx" else tensorrt()
    if manifest is not None:
        _check_version(path, manifest, library)
    builder_log = BuilderLog(library)
    runtime = library.module.Runtime(builder_log.logger)
    if manifest is not None and "version_compatible" in manifest.flags:
        runtime.engine_host_code_allowed = True  # such a plan carries its own small runtime
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{path}: {library.title} {library.version} cannot load it: {builder_log.first()}; an engine is for the "
            "TensorRT and the kind of GPU that it was built with: build it here again"
        )
    return LoadedEngine(path, library, manifest, gpu, engine, builder_log, runtime)


def _check_version(path: Path, manifest: EngineManifest, library: TensorRTLibrary) -> None:
    built, here = (_numbers(version) for version in (manifest.backend_version, library.version))
    numbers = 1 if "version_compatible" in manifest.flags else 3
    if built[:numbers] != here[:numbers]:
        raise EngineError(
            f"{path}: built by {library.title} {manifest.backend_version}, and this is {library.version}: build it "
            "here again, or install that version"
        )


def _numbers(version: str) -> list[str]:
    return version.split(".")
