"""Reads the plan of an engine: kept beside it, inspected on the GPU, or in a file of TensorRT's tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq.data.shape_profiles import expand_patterns
from trt_ptq.engines.manifest import check_engine, manifest_path, read_kept_plan, read_manifest
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_file import load_plan
from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.errors import EngineError, UsageError
from trt_ptq.types import ShapeProfile


def read_engine_plan(path: Path) -> EnginePlan:
    """Read the plan of an engine.

    Args:
        path: an engine; a file that ends in .plan.json; the inspector's JSON, as `trtexec --exportLayerInfo` writes it
            (.json); or a log of TensorRT-RTX's builder (.log, .txt).

    Raises:
        EngineError: the file cannot be read; or the engine has no plan beside it, and cannot be inspected here.
        MissingPackageError: the TensorRT that would inspect it is not installed.
    """
    if path.is_dir():
        raise EngineError(f"{path}: a folder: give an engine, such as {path / 'model.int8.engine'}, or an ONNX model")
    if path.name.endswith(".plan.json"):
        return load_plan(path)
    if path.suffix in (".json", ".log", ".txt"):
        return _parse(path)
    if manifest_path(path).exists():
        manifest = read_manifest(path)
        check_engine(path, _read(path), manifest)
        if (kept := read_kept_plan(path, manifest)) is not None:
            return kept
    if gpu_name() is None:
        _read(path)
        raise EngineError(
            f"{path}: no plan is kept beside it, and an engine is inspected only on an NVIDIA GPU: build it again with "
            "TensorRT-RTX, or give the model"
        )
    with EngineSession(path) as session:
        return session.inspect()


def check_planned_shapes(path: Path, plan: EnginePlan, shapes: Mapping[str, ShapeProfile]) -> None:
    """Check that a plan that was read is about these shapes.

    Raises:
        UsageError: an input is unknown, a shape is outside the profile of the engine, or the plan is about another.
    """
    profiles: dict[str, str] = {}
    if manifest_path(path).exists():
        profiles = read_manifest(path).profiles
    for name, wanted in expand_patterns(shapes, list(plan.shapes)).items():
        if name not in plan.shapes:
            raise UsageError(f"`shapes` names unknown input {name!r}: {path} has {', '.join(plan.shapes)}")
        size = "x".join(map(str, wanted.optimum))
        if name in profiles and not _within(wanted.optimum, ShapeProfile.parse(profiles[name])):
            raise UsageError(f"`shapes={name}={size}` is outside the profile of {path}, {profiles[name]}")
        if wanted.optimum != plan.shapes[name]:
            planned = "x".join(map(str, plan.shapes[name]))
            raise UsageError(f"the plan of {path} is for {name}={planned}: give the model to plan it for {name}={size}")


def _within(shape: tuple[int, ...], profile: ShapeProfile) -> bool:
    sizes = zip(profile.minimum, shape, profile.maximum, strict=False)
    return len(shape) == len(profile.minimum) and all(low <= size <= high for low, size, high in sizes)


def _parse(path: Path) -> EnginePlan:
    try:
        text = _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise EngineError(f"{path}: not a text file") from error
    if path.suffix == ".json":
        if '"Layers"' not in text:
            raise EngineError(
                f"{path}: no plan: give an engine, its .plan.json, an ONNX model, or what `trtexec --exportLayerInfo` "
                "writes"
            )
        return EnginePlan.from_inspector(text, where=str(path))
    try:
        return EnginePlan.from_rtx_log(text)
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error
