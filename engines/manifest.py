"""The manifest beside an engine file: what the engine was built from, how, and by which TensorRT."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from trt_ptq._internal.files import atomic_replace, check_writable, write_atomic
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import EngineError
from trt_ptq.provenance import ModelIdentity


class EngineManifest(BaseModel):
    """Facts about one engine file.

    `gpu` is None for an engine that was built without a GPU; `flags` are the flags of the builder;
    `tensors_without_range` names the tensors without an INT8 range in an implicit build: the layers that write or read
    them run in FP16. `refused_nodes` names the nodes, by their first output, that were excluded from quantization
    because the builder has no INT8 implementation for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    backend_version: str
    precision: Precision
    source: ModelIdentity
    profiles: dict[str, str]
    gpu: str | None
    build_seconds: float
    size_bytes: int
    sha256: str
    flags: tuple[str, ...] = ()
    tensors_without_range: tuple[str, ...] = ()
    refused_nodes: tuple[str, ...] = ()


def manifest_path(engine: Path) -> Path:
    """model.engine -> model.engine.json"""
    return engine.with_name(engine.name + ".json")


def write_engine(engine: Path, content: memoryview, manifest: EngineManifest) -> None:
    """Write an engine and its manifest; an engine never stays beside the manifest of another engine, or without one.

    Raises:
        OutputError: one of them cannot be written; then neither exists, or both old files are unchanged.
    """
    manifest_file = manifest_path(engine)
    check_writable(manifest_file)
    try:
        with atomic_replace(engine) as temporary:
            temporary.write_bytes(content)
            engine.unlink(missing_ok=True)  # from here on there is no engine until its manifest is written
            write_atomic(manifest_file, manifest.model_dump_json(indent=2) + "\n")
    except BaseException:
        if not engine.exists():
            with suppress(OSError):
                manifest_file.unlink()
        raise


def read_manifest(engine: Path) -> EngineManifest:
    """Read the manifest beside `engine`.

    Raises:
        EngineError: there is no manifest, or it is damaged.
    """
    path = manifest_path(engine)
    try:
        return EngineManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"{engine}: no manifest {path.name} beside it: {error.strerror}") from error
    except (ValidationError, ValueError) as error:
        raise EngineError(f"{path}: not an engine manifest") from error
