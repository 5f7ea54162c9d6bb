"""`build_engine`: an engine of any model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from trt_ptq._internal.files import check_writable
from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.api.apply_table import quantize_by_table
from trt_ptq.api.inputs.model_input import ModelLike, describe_model, opened_model
from trt_ptq.api.inputs.table_input import TableLike, matched_table
from trt_ptq.api.mended_build import build_without_refused
from trt_ptq.config import QuantizeConfig, ShapeLike, parse_shapes
from trt_ptq.data.shape_profiles import match_profiles
from trt_ptq.engines.backends import build_engine as _build_engine
from trt_ptq.engines.backends import check_backend, require_named_backend
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import BuilderConfig, EngineSpec, Precision
from trt_ptq.errors import EngineError, UsageError
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import QdqModel
from trt_ptq.qdq.node_selection import select_nodes


def build_engine(
    model: ModelLike,
    engine_path: str | os.PathLike[str],
    *,
    table: TableLike | None = None,
    nodes_to_exclude: str | Sequence[str] = (),
    nodes_to_include: str | Sequence[str] = (),
    attention: bool = False,
    precision: Precision | None = None,
    shapes: Mapping[str, ShapeLike] | None = None,
    backend: str = "auto",
    builder_config: BuilderConfig | None = None,
    allow_other_model: bool = False,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
) -> EngineManifest:
    """Build a TensorRT engine, with a manifest (.json) beside it.

    A Q/DQ model of any tool is built as it stands. A float model is converted first: to Q/DQ by `table`, to float16, or
    not at all. Where the builder has no implementation for an INT8 node of a model that was quantized by `table`, that
    node is excluded and the model is built again, at most five times.

    Args:
        model: path of an ONNX model (float or Q/DQ), an `onnx.ModelProto`, or a `torch.nn.Module` with
            `example_inputs`.
        engine_path: the file to write.
        table: for "int8" and a float model: a `CalibrationTable`, or the path of one. The calibration.json of
            `quantize` leads to the model that was verified there.
        nodes_to_exclude: with `table`: nodes that are not quantized, beside those that it excludes; see
            `QuantizeConfig`.
        nodes_to_include: with `table`: if given, only these nodes are quantized.
        attention: with `table`: also quantize the MatMuls of attention, even if the table does not.
        precision: "int8" (a Q/DQ model, or a float model with `table`), "fp16" or "fp32". Unless given, "int8" for
            these and "fp16" for others.
        shapes: optimization profiles by input name; see `QuantizeConfig`. Inputs with dynamic sizes need one.
        backend: "trt" (TensorRT), "rtx" (TensorRT for RTX), or "auto" (the one that works here).
        builder_config: options of the builder: timing cache, workspace, DLA, compatibility.
        allow_other_model: accept a table that was made for another model.
        example_inputs: for a torch module: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        dynamic_shapes: for a torch module: the axes that may vary, as for `torch.onnx.export`; the first of each input
            unless given.

    Returns:
        The manifest: what the engine was built from, with what, for which GPU and shapes; its `refused_nodes` are the
        nodes that had to be excluded.

    Raises:
        ModelError, TableError: the model or the table cannot be used.
        UsageError: an argument is invalid; names it.
        EngineError: the builder refuses the model.
        MissingPackageError: no backend is installed, or not the one that `backend` names.
        OutputError: `engine_path` cannot be written.
    """
    check_backend(backend)
    require_named_backend(backend)
    profiles = parse_shapes(shapes or {})
    selection = QuantizeConfig(
        nodes_to_exclude=nodes_to_exclude, nodes_to_include=nodes_to_include, attention=attention
    )
    if table is None and (nodes_to_exclude or nodes_to_include or attention):
        raise UsageError("`nodes_to_exclude`, `nodes_to_include` and `attention` need `table`")
    engine = Path(engine_path)
    with opened_model(model, example_inputs, dynamic_shapes, allow_quantized=True) as loaded:
        chosen = _precision(loaded, precision, table is not None)
        profiles = match_profiles(profiles, loaded.inputs)
        tables = [Path(table)] if isinstance(table, (str, os.PathLike)) else []
        check_writable(engine, loaded.path, *loaded.external.files, *tables)
        # Beside the engine: there is room for another file of its size, and /tmp may be memory.
        with temporary_folder(engine.parent) as folder:
            converted = folder / f"{loaded.path.stem}.{chosen}.onnx"
            onnx = loaded.path if loaded.is_quantized else converted
            spec = EngineSpec(onnx, engine, chosen, loaded.identity, profiles, builder_config or BuilderConfig())
            try:
                if table is not None:
                    quantize = _quantizer(loaded, table, selection, allow_other_model)
                    quantized = quantize(())
                    quantized.save(onnx)
                    return build_without_refused(spec, quantized, lambda spec: _build_engine(spec, backend), quantize)
                if not loaded.is_quantized:
                    save_model(to_float16(loaded) if chosen == "fp16" else loaded.to_ir(), onnx)
                return _build_engine(spec, backend)
            except EngineError as error:  # names a temporary file
                raise EngineError(str(error).replace(str(onnx), describe_model(model))) from error


def _precision(model: Model, precision: Precision | None, has_table: bool) -> Precision:
    if precision is not None and precision not in get_args(Precision):
        raise UsageError(f"`precision` must be one of {', '.join(get_args(Precision))}, not {precision!r}")
    if model.is_quantized:
        if has_table:
            raise UsageError(
                f"`table`: {model.path} is quantized already: leave the table out, or give the float model"
            )
        if precision not in (None, "int8"):
            raise UsageError(f"`precision` must be int8 for {model.path}, which is quantized, not {precision}")
        return "int8"
    if precision == "int8" and not has_table:
        raise UsageError(f"`precision=int8` needs `table`, or a Q/DQ model: {model.path} is a float model")
    if has_table and precision not in (None, "int8"):
        raise UsageError(f"`table` goes with `precision=int8`, not with {precision}")
    return precision or ("int8" if has_table else "fp16")


def _quantizer(
    model: Model, table: TableLike, selection: QuantizeConfig, allow_other_model: bool
) -> Callable[[Sequence[str]], QdqModel]:
    """A function that quantizes `model` by `table`, with further nodes excluded."""
    matched = matched_table(table, model, allow_other_model=allow_other_model)
    excluded = select_nodes(model.to_ir().graph, selection.nodes_to_include, selection.nodes_to_exclude)
    return lambda refused: quantize_by_table(model, matched, (*excluded, *refused), selection.attention)
