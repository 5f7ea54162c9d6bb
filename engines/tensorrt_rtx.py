"""TensorRT for RTX: builds strongly typed engines ahead of time, without a GPU."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from trt_ptq.calibrators.errors import EngineError
from trt_ptq.calibrators.files import replacing
from trt_ptq.calibrators.optional import require
from trt_ptq.engines.manifest import EngineManifest, write_manifest
from trt_ptq.engines.spec import EngineSpec, ShapeProfile

NAME = "tensorrt-rtx"


def build_rtx(spec: EngineSpec) -> EngineManifest:
    """Build the engine of `spec` and write it with its manifest.

    Raises:
        EngineError: the model cannot be parsed, its open dimensions have no profile, or the builder refuses; with
            the builder's own first complaint.
        MissingPackageError: tensorrt-rtx is not installed.
        OutputError: the engine cannot be written.
    """
    trt = require("tensorrt_rtx", extra="rtx")
    started = time.perf_counter()
    complaints: list[str] = []
    builder = trt.Builder(_logger(trt, complaints))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(spec.onnx)):
        told = "; ".join(_describe(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"{spec.onnx}: TensorRT-RTX cannot parse it: {told}")
    config = builder.create_builder_config()
    _apply_profiles(builder, network, config, spec)
    try:
        plan = builder.build_serialized_network(network, config)
    except RuntimeError as error:
        plan, complaints = None, complaints or [str(error)]
    if plan is None:
        raise EngineError(
            f"{spec.onnx}: TensorRT-RTX cannot build it: {complaints[0] if complaints else 'no reason given'}"
        )
    with replacing(spec.engine) as temporary:
        temporary.write_bytes(memoryview(plan))
    manifest = EngineManifest(
        backend=NAME,
        backend_version=trt.__version__,
        precision=spec.precision,
        source=spec.source,
        profiles={name: str(profile) for name, profile in spec.profiles.items()},
        gpu=None,
        build_seconds=round(time.perf_counter() - started, 3),
        size_bytes=plan.nbytes,
        sha256=hashlib.sha256(memoryview(plan)).hexdigest(),
    )
    write_manifest(manifest, spec.engine)
    return manifest


def _logger(trt: Any, complaints: list[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps errors for the message; the builder's warnings are of no use to a reader."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            # Without a driver the builder tries CUDA after each complaint and complains of that too.
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR) and "CudaError" not in message:
                complaints.append(message.strip())

    return Logger()


def _describe(error: Any) -> str:
    return f"{error.desc()} (node {error.node_name()!r}, {error.node_operator()})"


def _apply_profiles(builder: Any, network: Any, config: Any, spec: EngineSpec) -> None:
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    unknown = sorted(spec.profiles.keys() - inputs.keys())
    if unknown:
        raise EngineError(f"--shape names unknown inputs {', '.join(unknown)}: the model has {', '.join(inputs)}")
    without = [
        _open_dimensions(tensor)
        for name, tensor in inputs.items()
        if -1 in tuple(tensor.shape) and name not in spec.profiles
    ]
    if without:
        raise EngineError(f"{spec.onnx}: " + "; ".join(without))
    profile = builder.create_optimization_profile()
    for name, shapes in spec.profiles.items():
        tensor = inputs[name]
        _check_profile(tensor, shapes)
        tensor.shape = shapes.fixed  # an axis that is equal in all three is no longer open
        profile.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
    if spec.profiles:
        config.add_optimization_profile(profile)


def _open_dimensions(tensor: Any) -> str:
    """What is open in an input, and how to close it."""
    shape = tuple(tensor.shape)
    axes = ", ".join(
        f"axis {axis} ({tensor.get_dimension_name(axis) or 'unnamed'})" for axis, size in enumerate(shape) if size == -1
    )

    def example(size: int) -> str:
        return "x".join(str(size if axis == -1 else axis) for axis in shape)

    return (
        f"input {tensor.name!r} has open dimensions {axes}: give their range with "
        f"--shape {tensor.name}=MIN:OPT:MAX, in the form {tensor.name}={example(1)}:{example(8)}:{example(16)} "
        "(an axis that must be fixed has the same number in all three)"
    )


def _check_profile(tensor: Any, shapes: ShapeProfile) -> None:
    have = tuple(tensor.shape)
    if len(have) != len(shapes.minimum) or any(
        size not in (-1, low) or (size != -1 and low != high)
        for size, low, high in zip(have, shapes.minimum, shapes.maximum, strict=True)
    ):
        told = "x".join("?" if size == -1 else str(size) for size in have)
        raise EngineError(f"--shape {tensor.name}={shapes}: does not fit the model's {told}")
