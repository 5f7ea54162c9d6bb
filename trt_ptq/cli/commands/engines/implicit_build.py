"""Implicit quantization for `trt-ptq build --implicit`: TensorRT 10 or older quantizes the float model itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_ptq._internal.files import check_writable
from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.api.inputs.table_input import check_not_transformed
from trt_ptq.calibrators.tensorrt.batch import BatchCalibrator, EntropyCalibrator, MinMaxCalibrator
from trt_ptq.cli import console
from trt_ptq.cli.read_table import read_table
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.open import open_data
from trt_ptq.data.shape_profiles import match_profiles
from trt_ptq.data.user_function import read_from
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.manifest import EngineManifest, manifest_path
from trt_ptq.engines.spec import BuilderConfig, DynamicRanges, EngineSpec, ImplicitRanges, MakeCalibrator
from trt_ptq.errors import EngineError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.ranges.match_table import match_table
from trt_ptq.types import BatchSource, ShapeProfile

CALIBRATORS: dict[str, Callable[..., BatchCalibrator]] = {"entropy": EntropyCalibrator, "minmax": MinMaxCalibrator}


def build_implicit(
    path: Path,
    out: Path,
    *,
    table: Path | None,
    dynamic_ranges: bool,
    data: str | None,
    calibrator: str,
    cache: Path | None,
    batch_size: int,
    preprocess: str | None,
    profiles: dict[str, ShapeProfile],
    backend: str,
    builder_config: BuilderConfig,
    allow_other_model: bool,
) -> EngineManifest:
    """Build an engine from a float model and a table, or from data that TensorRT calibrates with."""
    model = load_model(path)
    profiles = match_profiles(profiles, model.inputs)
    inputs = [path, *model.external.files, *([table] if table else []), *read_from(data, preprocess)]
    check_writable(out, *inputs)
    if cache is not None:
        check_writable(cache, *inputs, out, manifest_path(out))
    if table is not None:
        ranges = _table_ranges(model, table, dynamic_ranges, allow_other_model)
    else:
        source = open_data(data, model.inputs, batch_size=batch_size, preprocess=preprocess)
        ranges = _calibrator_factory(calibrator, model, ValidatedSource(source, model.inputs), cache)
    # Not in /tmp, which may be small or in memory.
    with temporary_folder(out.parent) as folder:
        copy = folder / f"{path.stem}.int8.onnx"
        save_model(model.to_ir(), copy)
        spec = EngineSpec(copy, out, "int8", model.identity, profiles, builder_config, ranges)
        try:
            return build_engine(spec, backend)
        except EngineError as error:  # names the temporary copy
            raise EngineError(str(error).replace(str(copy), str(path))) from error


def _table_ranges(model: Model, table: Path, dynamic_ranges: bool, allow_other_model: bool) -> ImplicitRanges:
    ranges = read_table(table)
    if not allow_other_model:
        check_not_transformed(table, ranges, model)
        ranges.check_model(model.identity, str(table))
    if ranges.recipe and ranges.recipe.nodes_to_exclude:
        console.warn(
            f"TensorRT decides what runs in INT8: an implicit engine does not exclude "
            f"{', '.join(ranges.recipe.nodes_to_exclude)}, as the model does that `trt-ptq quantize` verified"
        )
    ranges = replace(ranges, recipe=None)
    matched = match_table(model.to_ir().graph, ranges, str(table)).table
    return DynamicRanges(matched) if dynamic_ranges else matched


def _calibrator_factory(name: str, model: Model, batches: BatchSource, cache: Path | None) -> MakeCalibrator:
    """Return a function that creates the calibrator `name` for a network; it shows progress and keeps `cache`."""

    def create(network: Any, profile: Any) -> Any:  # a subclass of TensorRT's calibrator
        return CALIBRATORS[name](
            batches, cache, network=network, profile=profile, model=model.identity, progress=console.progress
        )

    return create
