"""Loads an engine file with the TensorRT that built it, or says plainly why it cannot be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq.engines.library import BuilderLog, TensorRTLibrary, tensorrt, tensorrt_rtx
from trt_ptq.engines.manifest import EngineManifest, check_engine, manifest_path, read_manifest
from trt_ptq.errors import EngineError


@dataclass(frozen=True)
class LoadedEngine:
    """TensorRT's `engine` and the objects that must outlive it; `manifest` is None for engines of other tools."""

    path: Path
    library: TensorRTLibrary
    manifest: EngineManifest | None
    gpu: str
    engine: Any
    builder_log: BuilderLog
    runtime: Any


def engine_backend(path: Path) -> str:
    """The library that built the engine at `path`, by its manifest; "tensorrt" without one.

    Raises:
        EngineError: the manifest is damaged.
    """
    return read_manifest(path).backend if manifest_path(path).exists() else "tensorrt"


def load_engine(path: Path) -> LoadedEngine:
    """Load an engine with the library that its manifest names; without a manifest, with TensorRT.

    Raises:
        EngineError: no such file, a file that differs from its manifest, no GPU, an engine of another TensorRT
            version, or TensorRT refuses it, with its own first error.
        MissingPackageError: the required TensorRT is not installed.
    """
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read engine {path}: {error.strerror}") from error
    manifest = read_manifest(path) if manifest_path(path).exists() else None
    if manifest is not None:
        check_engine(path, plan, manifest)
    gpu = gpu_name()
    if gpu is None:
        raise EngineError(f"{path}: an engine runs only on an NVIDIA GPU, and there is none here")
    library = tensorrt_rtx() if manifest is not None and manifest.backend == "tensorrt-rtx" else tensorrt()
    if manifest is not None:
        _check_version(path, manifest, library)
    builder_log = BuilderLog(library)
    runtime = library.module.Runtime(builder_log.logger)
    if manifest is not None and "version_compatible" in manifest.flags:
        runtime.engine_host_code_allowed = True  # such a plan contains its own small runtime
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{path}: {library.title} {library.version} cannot load it: {builder_log.first()}; an engine runs only on "
            "the TensorRT version and the kind of GPU that it was built for: build it again on this machine"
        )
    return LoadedEngine(path, library, manifest, gpu, engine, builder_log, runtime)


def _check_version(path: Path, manifest: EngineManifest, library: TensorRTLibrary) -> None:
    built, installed = (version.split(".") for version in (manifest.backend_version, library.version))
    numbers = 1 if "version_compatible" in manifest.flags else 3
    if built[:numbers] != installed[:numbers]:
        raise EngineError(
            f"{path}: built by {library.title} {manifest.backend_version}, but {library.version} is installed: build "
            "it again, or install that version"
        )
