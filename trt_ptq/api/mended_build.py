"""Builds a Q/DQ model again, without the nodes that the builder has no INT8 implementation for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trt_ptq._internal.listing import first_few
from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.engines.manifest import EngineManifest
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError, UnsupportedLayerError
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import QdqModel
from trt_ptq.qdq.layer_nodes import int8_nodes_of_layer

MAX_BUILDS_AGAIN = 5
_SHOWN = 3


def build_without_refused(
    spec: EngineSpec,
    model: QdqModel,
    build: Callable[[EngineSpec], EngineManifest],
    quantize: Callable[[Sequence[str]], QdqModel],
) -> EngineManifest:
    """Build a Q/DQ model; where the builder has no implementation for an INT8 node, exclude it and build again.

    Args:
        spec: the engine to build.
        model: the Q/DQ model in `spec.onnx`.
        build: builds an engine.
        quantize: quantizes the model like `model`, but with further nodes excluded, given by their first output.

    Returns:
        The manifest; `refused_nodes` are the nodes that had to be excluded.

    Raises:
        EngineError: the builder fails otherwise, names no INT8 node of the model, or still fails after
            `MAX_BUILDS_AGAIN` further builds.
        MissingPackageError, OutputError, UsageError: see `engines.backends.build_engine`.
    """
    refused: list[str] = []
    with temporary_folder(spec.engine.parent) as folder:
        current = spec
        for builds_left in reversed(range(MAX_BUILDS_AGAIN + 1)):
            try:
                return build(replace(current, refused_nodes=tuple(refused)))
            except EngineError as error:
                layer = error.layer if isinstance(error, UnsupportedLayerError) else ""
                nodes = [name for name in int8_nodes_of_layer(layer, model) if name not in refused] if layer else []
                if nodes and builds_left:
                    refused += nodes
                elif refused:
                    raise _after_exclusions(error, current.onnx, spec.onnx, refused) from error
                else:
                    raise
            model = quantize(refused)
            current = replace(spec, onnx=folder / spec.onnx.name)
            save_model(model.model, current.onnx)
    raise AssertionError("the last build returns or raises")


def describe_refused(nodes: Sequence[str]) -> str:
    """The nodes that were excluded because a builder refused them, as text."""
    return first_few([*map(repr, nodes)], _SHOWN)


def _after_exclusions(error: EngineError, built: Path, given: Path, refused: Sequence[str]) -> EngineError:
    """The last error, which names a temporary file, with what was tried."""
    return EngineError(
        f"{str(error).replace(str(built), str(given))} (also after {describe_refused(refused)} were excluded from "
        "quantization, which it had refused before)"
    )
