"""The steps that all backends share: parse, configure, build, and write the plan with its manifest."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import onnx

from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq._internal.signals import deferred_interrupts_unless_handled
from trt_ptq.engines.building.builder_config import apply_builder_config, load_timing_cache, save_timing_cache
from trt_ptq.engines.building.debug_tensors import mark_debug_tensors
from trt_ptq.engines.building.network_profiles import apply_profiles
from trt_ptq.engines.building.quantized_layers import quantized_layers
from trt_ptq.engines.building.unsupported_layer import unsupported_layer
from trt_ptq.engines.int8_io import IoScales, int8_scales
from trt_ptq.engines.library import BuilderLog, TensorRTLibrary
from trt_ptq.engines.manifest import EngineManifest, write_engine
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.plan_file import plan_digest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError, UnsupportedLayerError


class EngineBuilder:
    """One build in progress. A backend creates it, adjusts `config` and `network`, and finishes it.

    `profile` is the optimization profile, None if all shapes are fixed.
    """

    def __init__(self, library: TensorRTLibrary, spec: EngineSpec, strongly_typed: bool) -> None:
        """Parse the model, and apply the profiles and the builder configuration.

        Raises:
            EngineError: the model cannot be parsed, a dynamic dimension has no profile, or an option is not supported
                here; with the library's own first error.
        """
        trt = library.module
        self.library, self._spec = library, spec
        self._started, self._seconds = time.perf_counter(), 0.0
        self._builder_log = BuilderLog(library)
        with deferred_interrupts_unless_handled():
            self._builder = trt.Builder(self._builder_log.logger)
        if self._builder is None:
            raise EngineError(f"{library.title} {library.version} cannot start: {self._builder_log.first()}")
        self.network = self._builder.create_network(_network_flags(library, strongly_typed))
        self._parser = trt.OnnxParser(self.network, self._builder_log.logger)  # owns the weights until the build ends
        with deferred_interrupts_unless_handled():
            parsed = self._parser.parse_from_file(str(spec.onnx))
        if not parsed:
            errors = "; ".join(_describe(self._parser.get_error(index)) for index in range(self._parser.num_errors))
            raise EngineError(f"{spec.onnx}: {library.title} cannot parse it: {errors}")
        if spec.debug_tensors:
            mark_debug_tensors(library, self.network, spec.debug_tensors)
        self.config = self._builder.create_builder_config()
        # Otherwise the inspector reports only the names of layers, not their precisions.
        self.config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        self.profile = apply_profiles(self._builder, self.network, self.config, spec)
        self._flags = apply_builder_config(library, self._builder, self.config, spec.builder_config)
        if spec.builder_config.timing_cache is not None:
            load_timing_cache(library, self.config, spec.builder_config.timing_cache, self._builder_log)

    def plan(self) -> Any:
        """Build the plan, a buffer of TensorRT's.

        Raises:
            UnsupportedLayerError: the builder has no implementation for a layer.
            EngineError: the builder fails otherwise; with its own first error.
        """
        try:
            with deferred_interrupts_unless_handled():
                plan = self._builder.build_serialized_network(self.network, self.config)
        except RuntimeError as error:
            plan = None
            self._builder_log.errors.append(str(error))
        if plan is None:
            message = f"{self._spec.onnx}: {self.library.title} cannot build it: {self._builder_log.first()}"
            layer = unsupported_layer(self._builder_log.errors)
            raise EngineError(message) if layer is None else UnsupportedLayerError(message, layer)
        self._seconds = time.perf_counter() - self._started
        return plan

    def release_model(self) -> None:
        """Free the parsed model, which holds the weights; of the other methods only `write` works from then on."""
        self.network = self._parser = None

    def engine_plan(self) -> EnginePlan | None:
        """The kernels of the engine that was built last; None where the library does not log them.

        Raises:
            EngineError: they cannot be read.
        """
        if not self._builder_log.kernels:
            return None
        plan = EnginePlan.from_rtx_log(self._builder_log.kernels[-1], self.library.version)
        return plan.model_copy(update={"quantized": quantized_layers(self.library, self.network)})

    def write(
        self,
        plan: Any,
        flags: tuple[str, ...],
        tensors_without_range: tuple[str, ...] = (),
        engine_plan: EnginePlan | None = None,
    ) -> EngineManifest:
        """Write the engine, its manifest, its plan and the timing cache.

        Args:
            plan: from `plan`.
            flags: what the backend set, for the manifest.
            tensors_without_range: for the manifest.
            engine_plan: the engine's kernels, if they are known.

        Raises:
            OutputError: a file cannot be written.
        """
        spec = self._spec
        content = memoryview(plan)
        if spec.builder_config.timing_cache is not None:
            save_timing_cache(self.config, spec.builder_config.timing_cache)
        manifest = EngineManifest(
            backend=self.library.name,
            backend_version=self.library.version,
            precision=spec.precision,
            source=spec.source,
            profiles={name: str(profile) for name, profile in spec.profiles.items()},
            gpu=gpu_name(),
            build_seconds=round(self._seconds, 3),
            size_bytes=content.nbytes,
            sha256=hashlib.sha256(content).hexdigest(),
            flags=(*flags, *self._flags),
            tensors_without_range=tensors_without_range,
            target=spec.target,
            refused_nodes=spec.refused_nodes,
            plan_sha256=None if engine_plan is None else plan_digest(engine_plan),
            int8_io=_int8_io(spec),
        )
        write_engine(spec.engine, content, manifest, engine_plan)
        return manifest


def _int8_io(spec: EngineSpec) -> dict[str, IoScales]:
    if spec.precision != "int8":
        return {}
    model = onnx.load_model(spec.onnx, load_external_data=False)
    return int8_scales({entry.key: entry.value for entry in model.metadata_props})


def _network_flags(library: TensorRTLibrary, strongly_typed: bool) -> int:
    known = library.module.NetworkDefinitionCreationFlag
    # EXPLICIT_BATCH: TensorRT 8 and 9 need the flag, 10 always acts so, later versions do not know the flag.
    wanted = ["EXPLICIT_BATCH"] if hasattr(known, "EXPLICIT_BATCH") else []
    if strongly_typed:
        library.require(hasattr(known, "STRONGLY_TYPED"), "strongly typed networks")
        wanted.append("STRONGLY_TYPED")
    return sum(1 << int(getattr(known, name)) for name in wanted)


def _describe(error: Any) -> str:
    if not hasattr(error, "node_name"):  # before TensorRT 10
        return f"{error.desc()} (node {error.node()})"
    return f"{error.desc()} (node {error.node_name()!r}, {error.node_operator()})"
