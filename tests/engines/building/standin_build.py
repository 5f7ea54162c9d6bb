"""Runs on the stand-ins, in a subprocess: one build with trt_ptq. The last line of stdout is JSON.

The options come as JSON in the first argument: see Options.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines import manifest
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.building import builder as building
from trt_ptq.engines.building import builder_config
from trt_ptq.engines.spec import BuilderConfig, DynamicRanges, EngineSpec, ImplicitRanges, parse_profiles
from trt_ptq.errors import OutputError, TrtPtqError
from trt_ptq.provenance import ModelIdentity


@dataclasses.dataclass
class Options:
    onnx: str
    engine: str
    precision: str = "int8"
    shapes: list[str] = dataclasses.field(default_factory=list)
    builder_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    implicit: str | None = None  # table, ranges, or the name of a TensorRT calibrator class
    amax: dict[str, float] = dataclasses.field(default_factory=dict)
    failure: str | None = None  # the calibrator's get_batch raises this
    passes: int = 1
    as_if_there_were_a_dla: bool = False
    calibration_profile_refused: bool = False
    manifest_cannot_be_written: bool = False


@dataclasses.dataclass
class Seen:
    """What the calibrator and the build saw of each other."""

    calls: list[str] = dataclasses.field(default_factory=list)
    profile: list[int] | None = None
    inputs: list[str] | None = None


class Ending:
    """Ends the data at once, after a failure that it defers, as trt_ptq's own calibrators do."""

    def __init__(self, trt: Any, options: Options, seen: Seen, cache: bytes) -> None:
        base: Any = getattr(trt, options.implicit or "")
        deferred: list[BaseException] = []

        class Calibrator(base):  # type: ignore[misc]
            def __init__(self) -> None:
                base.__init__(self)

            def get_batch_size(self) -> int:
                return 1

            def get_batch(self, names: list[str]) -> None:
                deferred.append(
                    KeyboardInterrupt() if options.failure == "KeyboardInterrupt" else OSError("disk on fire")
                )

            def read_calibration_cache(self) -> bytes | None:
                return None if options.failure else cache

            def write_calibration_cache(self, content: memoryview) -> None:
                seen.calls.append("write_calibration_cache")

            def passes(self) -> Iterator[None]:
                for _ in range(options.passes):
                    seen.calls.append("pass")
                    yield
                    if deferred:
                        raise deferred[0]

        self._make, self._seen, self._deferred = Calibrator, seen, deferred

    def __enter__(self) -> Any:
        self._seen.calls.append("enter")
        return self._make()

    def __exit__(self, *_: object) -> None:
        self._seen.calls.append("exit")
        if self._deferred:
            raise self._deferred[0]


def ranges(options: Options, seen: Seen) -> ImplicitRanges | None:
    table = CalibrationTable(options.amax) if options.amax else None
    if options.implicit is None:
        return None
    if options.implicit == "table" and table:
        return table
    if options.implicit == "ranges" and table:
        return DynamicRanges(table)
    trt: Any = importlib.import_module("tensorrt")
    number = int("".join(part.zfill(2) for part in trt.__version__.split(".")[:3]))
    algorithm = {"IInt8EntropyCalibrator2": "EntropyCalibration2", "IInt8MinMaxCalibrator": "MinMaxCalibration"}
    cache = f"TRT-{number}-{algorithm[options.implicit]}\nx: 3c010204\n".encode()

    def make(network: Any, profile: Any) -> Any:
        seen.inputs = [network.get_input(index).name for index in range(network.num_inputs)]
        seen.profile = None if profile is None else list(profile.get_shape("x")[1])
        return Ending(trt, options, seen, cache)

    return make


def read_back(trt: Any, configured: dict[str, Any]) -> None:
    """Put what the genuine configuration says into `configured`, once trt_ptq is done with it."""
    module: Any = building
    apply = module.apply_builder_config

    def applied(library: Any, builder: Any, config: Any, options: BuilderConfig) -> tuple[str, ...]:
        flags: tuple[str, ...] = apply(library, builder, config, options)
        configured["version_compatible"] = config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        configured["workspace_bytes"] = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
        configured["hardware_compatibility"] = config.hardware_compatibility_level.name
        return flags

    module.apply_builder_config = applied


def cannot_write(path: Path, _content: object) -> None:
    raise OutputError(f"cannot write {path}: No space left on device")


def run(options: Options) -> dict[str, Any]:
    standin: Any = importlib.import_module("standin")
    trt: Any = importlib.import_module("tensorrt")
    engine, seen = Path(options.engine), Seen()
    configured: dict[str, Any] = {}
    read_back(trt, configured)
    if options.manifest_cannot_be_written:
        module: Any = manifest
        module.write_atomic = cannot_write
    if options.as_if_there_were_a_dla:  # the stand-in has none, like most machines
        vars(builder_config)["_use_dla"] = lambda *_: None
    if options.calibration_profile_refused:
        trt.IBuilderConfig.set_calibration_profile = lambda *_: False
    given = {**options.builder_config}
    if "timing_cache" in given:
        given["timing_cache"] = Path(given["timing_cache"])
    outcome: dict[str, Any] = {"error": None, "layer": None, "manifest": None, "plan": None, "configured": configured}
    try:
        spec = EngineSpec(
            Path(options.onnx),
            engine,
            options.precision,  # type: ignore[arg-type]
            ModelIdentity("graph", "weights"),
            parse_profiles(options.shapes),
            BuilderConfig(**given),
            ranges(options, seen),
        )
        outcome["manifest"] = build_engine(spec).model_dump(mode="json")
        outcome["plan"] = dataclasses.asdict(standin.read_plan(engine.read_bytes()))
    except (TrtPtqError, OSError, KeyboardInterrupt) as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
        outcome["layer"] = getattr(error, "layer", None)
    return {**outcome, "seen": dataclasses.asdict(seen), "files": sorted(path.name for path in engine.parent.iterdir())}


if __name__ == "__main__":
    print(json.dumps(run(Options(**json.loads(sys.argv[1])))))
