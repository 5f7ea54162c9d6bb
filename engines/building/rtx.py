"""TensorRT for RTX: builds strongly typed engines ahead of time, without a GPU."""

from __future__ import annotations

from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.library import tensorrt_rtx
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError


def build_rtx(spec: EngineSpec) -> EngineManifest:
    """Build the engine of `spec` and write it with its manifest.

    Raises:
        EngineError: the model cannot be parsed, its open dimensions have no profile, or the builder refuses; with
            the builder's own first complaint.
        MissingPackageError: tensorrt-rtx is not installed.
        OutputError: the engine cannot be written.
    """
    if spec.implicit is not None:
        raise EngineError(
            "TensorRT-RTX takes no calibrator and no calibrated ranges beside the model: build the Q/DQ model that "
            "`trt-ptq qdq MODEL --table TABLE` makes, or use --backend trt with TensorRT 10"
        )
    build = EngineBuilder(tensorrt_rtx(), spec, strongly_typed=True)
    return build.write(build.plan(), ("strongly_typed",))
