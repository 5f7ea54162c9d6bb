"""TensorRT 10 and later, explicit: every tensor has the type that the ONNX model says (Q/DQ, float16 or float)."""

from __future__ import annotations

from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.building.builder_config import require_used_dla
from trt_ptq.engines.library import TensorRTLibrary
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec


def build_explicit(library: TensorRTLibrary, spec: EngineSpec) -> EngineManifest:
    """Build a strongly typed engine of `spec.onnx` and write it with its manifest.

    Raises:
        EngineError: the model cannot be parsed, its open dimensions have no profile, a setting is unknown here,
            no layer can run on the DLA that is asked for, or the builder refuses; with its own first complaint.
        OutputError: the engine cannot be written.
    """
    build = EngineBuilder(library, spec, strongly_typed=True)
    if spec.settings.dla_core is not None:
        require_used_dla(build.network, build.config, spec.settings.dla_core)
    return build.write(build.plan(), ("strongly_typed",))
