"""Ahead-of-time builds with TensorRT for RTX: strongly typed engines, without a GPU."""

from __future__ import annotations

from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.library import tensorrt_rtx
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError


def build_rtx(spec: EngineSpec) -> EngineManifest:
    """Build a strongly typed engine and write it with its manifest.

    Raises:
        EngineError: `spec` asks for implicit quantization, the model cannot be parsed, a dynamic dimension has no
            profile, or the builder fails; with its own first error.
        MissingPackageError: tensorrt-rtx is not installed.
        OutputError: the engine cannot be written.
    """
    if spec.implicit is not None:
        raise EngineError(
            "TensorRT-RTX has no implicit quantization: build the Q/DQ model from "
            "`trt-ptq qdq MODEL --table TABLE`, or use `backend=trt` with TensorRT 10"
        )
    build = EngineBuilder(tensorrt_rtx(), spec, strongly_typed=True)
    return build.write(build.plan(), ("strongly_typed",))
