"""The manifest beside an engine file: what the engine was built from, how, and by which TensorRT."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from trt_ptq._internal.files import atomic_replace, check_writable, write_atomic
from trt_ptq.choices import Target
from trt_ptq.engines.int8_io import IoScales
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_file import load_plan, plan_path, write_plan
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import EngineError
from trt_ptq.provenance import ModelIdentity


class EngineManifest(BaseModel):
    """Facts about one engine file.

    `gpu` is None for an engine that was built without a GPU; `flags` are the flags of the builder;
    `tensors_without_range` names the tensors without an INT8 range in an implicit build: the layers that write or read
    them run in FP16. `refused_nodes` names the nodes, by their first output, that were excluded from quantization
    because the builder has no INT8 implementation for them. `target` is the builder that a Q/DQ model is meant
    for, None if unknown. `plan_sha256` is the digest of the file with the engine's kernels, beside it (see
    `plan_path`); None where they are not known without a GPU. `int8_io` has the scales of inputs and outputs that
    are INT8 where those of the float model are float.
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
    target: Target | None = None
    refused_nodes: tuple[str, ...] = ()
    plan_sha256: str | None = None
    int8_io: dict[str, IoScales] = {}


def manifest_path(engine: Path) -> Path:
    """model.engine -> model.engine.json"""
    return engine.with_name(engine.name + ".json")


def write_engine(engine: Path, content: memoryview, manifest: EngineManifest, plan: EnginePlan | None = None) -> None:
    """Write an engine, its manifest and its plan; an engine never stays beside those of another engine, or without.

    Raises:
        OutputError: one of them cannot be written; then none exists, or all old files are unchanged.
    """
    manifest_file, plan_file = manifest_path(engine), plan_path(engine)
    for file in (manifest_file, plan_file):
        check_writable(file)
    try:
        with atomic_replace(engine) as temporary:
            temporary.write_bytes(content)
            engine.unlink(missing_ok=True)  # from here on there is no engine until its manifest is written
            if plan is None:
                plan_file.unlink(missing_ok=True)
            else:
                write_plan(plan, plan_file)
            write_atomic(manifest_file, manifest.model_dump_json(indent=2) + "\n")
    except BaseException:
        if not engine.exists():
            for file in (manifest_file, plan_file):
                with suppress(OSError):
                    file.unlink()
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


def read_kept_plan(engine: Path, manifest: EngineManifest) -> EnginePlan | None:
    """Read the plan beside `engine`; None if none was kept.

    Raises:
        EngineError: the plan is gone, damaged, or that of another engine.
    """
    return None if manifest.plan_sha256 is None else load_plan(plan_path(engine), manifest.plan_sha256)


def check_engine(engine: Path, content: bytes, manifest: EngineManifest) -> None:
    """Check that the manifest beside an engine is about `content`.

    Raises:
        EngineError: it is about another engine.
    """
    if manifest.sha256 != hashlib.sha256(content).hexdigest():
        raise EngineError(f"{engine}: differs from the engine in {manifest_path(engine).name}: damaged, or replaced")
