"""What is written beside an engine, so that nobody has to guess what it is."""

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

    `gpu` is None for an engine that was built without one; `flags` are the builder's flags; `tensors_without_range`
    names tensors that have no INT8 range in an implicit build, so that what makes or reads them runs in FP16.
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


def manifest_path(engine: Path) -> Path:
    """model.engine -> model.engine.json"""
    return engine.with_name(engine.name + ".json")


def write_engine(engine: Path, content: memoryview, manifest: EngineManifest) -> None:
    """Write the engine and the manifest beside it; never an engine beside the manifest of another, or beside none.

    Raises:
        OutputError: one of them cannot be written; neither is there then, or both old ones still are.
    """
    beside = manifest_path(engine)
    check_writable(beside)
    try:
        with atomic_replace(engine) as temporary:
            temporary.write_bytes(content)
            engine.unlink(missing_ok=True)  # from here on there is no engine until its own manifest is there
            write_atomic(beside, manifest.model_dump_json(indent=2) + "\n")
    except BaseException:
        if not engine.exists():
            with suppress(OSError):
                beside.unlink()
        raise


def read_manifest(engine: Path) -> EngineManifest:
    """Read the manifest beside `engine`.

    Raises:
        EngineError: there is none, or it is damaged.
    """
    path = manifest_path(engine)
    try:
        return EngineManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"{engine}: no manifest {path.name} beside it: {error.strerror}") from error
    except (ValidationError, ValueError) as error:
        raise EngineError(f"{path}: not an engine manifest") from error
