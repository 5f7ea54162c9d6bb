"""Explicit builds with TensorRT 10 and later: every tensor has its type in the ONNX model (Q/DQ, float16 or float)."""

from __future__ import annotations

from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.building.builder_config import require_used_dla
from trt_ptq.engines.library import TensorRTLibrary
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec


def build_explicit(library: TensorRTLibrary, spec: EngineSpec) -> EngineManifest:
    """Build a strongly typed engine and write it with its manifest.

    Raises:
        EngineError: the model cannot be parsed, a dynamic dimension has no profile, an option is not supported here,
            no layer can run on the requested DLA core, or the builder fails; with its own first error.
        OutputError: the engine cannot be written.
    """
    build = EngineBuilder(library, spec, strongly_typed=True)
    if spec.builder_config.dla_core is not None:
        require_used_dla(build.network, build.config, spec.builder_config.dla_core)
    return build.write(build.plan(), ("strongly_typed",))
