"""Implicit builds with TensorRT 10 and older: float model and ranges; TensorRT decides which layers run in INT8."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.tensorrt.calibration_warning import CalibrationFailedWarning
from trt_ptq.calibrators.tensorrt.table_calibrator import TableCalibrator
from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.building.dynamic_ranges import set_dynamic_ranges, tensors_without_range
from trt_ptq.engines.library import TensorRTLibrary
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import DynamicRanges, EngineSpec, ImplicitRanges, MakeCalibrator
from trt_ptq.errors import EngineError


def build_implicit(library: TensorRTLibrary, spec: EngineSpec, ranges: ImplicitRanges) -> EngineManifest:
    """Build an INT8 engine, with FP16 for the layers that do not run in INT8, and write it with its manifest.

    Raises:
        EngineError: this TensorRT has no calibrators; DLA with another algorithm than Entropy2; a table without a
            range for any tensor of the model; or the builder fails, with its own first error.
        OutputError: the engine cannot be written.
        BaseException: the exception of a calibrator's callback, KeyboardInterrupt included; nothing is written then.
    """
    trt = library.module
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise EngineError(
            f"{library.title} {library.version} has no calibrators (removed in TensorRT 11): create a Q/DQ model with "
            "`trt-ptq qdq MODEL --table TABLE` and build that, or install TensorRT 10: pip install 'trt-ptq[trt10]'"
        )
    with warnings.catch_warnings():
        # TensorRT 10 deprecates implicit quantization; the user has asked for it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", CalibrationFailedWarning)  # the exception itself is raised below
        build = EngineBuilder(library, spec, strongly_typed=False)
        build.config.set_flag(trt.BuilderFlag.INT8)
        build.config.set_flag(trt.BuilderFlag.FP16)
        if isinstance(ranges, DynamicRanges):
            missing = tensors_without_range(trt, build.network, ranges.table)
            set_dynamic_ranges(build.network, ranges.table)
            return build.write(build.plan(), ("int8", "fp16", "dynamic_ranges"), missing)
        missing = ()
        if isinstance(ranges, CalibrationTable):
            missing = tensors_without_range(trt, build.network, ranges)
            make: MakeCalibrator = partial(_table_calibrator, ranges)
        else:
            make = ranges
        if spec.builder_config.timing_cache is None:
            # Makes the second build fast for a calibrator that needs two.
            build.config.set_timing_cache(build.config.create_timing_cache(b""), ignore_mismatch=False)
        with make(build.network, build.profile) as calibrator:
            algorithm = calibrator.get_algorithm()
            if spec.builder_config.dla_core is not None and algorithm != trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2:
                raise EngineError(
                    f"DLA needs the algorithm EntropyCalibration2 (EntropyCalibrator), not {algorithm.name}"
                )
            # The config holds only a raw pointer: `calibrator` has to live until the build ends.
            build.config.int8_calibrator = calibrator
            if build.profile is not None and not build.config.set_calibration_profile(build.profile):
                raise EngineError(f"{spec.onnx}: {library.title} refuses the calibration profile for these shapes")
            plan = None
            for _ in calibrator.passes():
                plan = build.plan()
        return build.write(plan, ("int8", "fp16", f"calibrator={algorithm.name}"), missing)


def _table_calibrator(table: CalibrationTable, network: Any, _profile: Any) -> Any:
    return TableCalibrator(table, network=network)
