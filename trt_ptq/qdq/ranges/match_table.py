"""Match a table of an older network or another tool with a model, and infer the ranges that it lacks."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from trt_ptq.analysis.dataflow import activations
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import TableError
from trt_ptq.qdq.plan import plan_quantization
from trt_ptq.qdq.ranges.infer_ranges import InferredRange, infer_ranges

UNNAMED = "(Unnamed Layer*"  # prefix of TensorRT's name, with a layer number, for outputs without a name
_MAX_SIMILAR = 3
_MAX_LOOKUPS = 50  # looking up a thousand names among a thousand takes over half a minute


@dataclass(frozen=True)
class Unmatched:
    """A name without a counterpart.

    Attributes:
        name: The name, in the table or the model.
        similar: The most similar names of the other side without a counterpart; looked up for the first 50 names only.
    """

    name: str
    similar: tuple[str, ...]


@dataclass(frozen=True)
class MatchReport:
    """How the names of a table match those of a model.

    Attributes:
        matched: Names of the table that are float activations of the model.
        unusable: Matched names whose scale is zero, denormal or not finite.
        inferred: Ranges that the table lacks and that follow from others.
        unknown: Names of the table that the model does not have.
        unnamed: Entries of TensorRT's unnamed layers, which cannot be matched.
        not_activations: Names of constants, shapes or tensors of another type.
        missing: Tensors that need a range and have none; the nodes that read them do not run in INT8.
    """

    matched: tuple[str, ...]
    unusable: tuple[str, ...]
    inferred: tuple[InferredRange, ...]
    unknown: tuple[Unmatched, ...]
    unnamed: tuple[str, ...]
    not_activations: tuple[str, ...]
    missing: tuple[Unmatched, ...]


@dataclass(frozen=True)
class MatchedTable:
    """A table completed with inferred ranges, and the report about it."""

    table: CalibrationTable
    report: MatchReport


def match_table(graph: ir.Graph, table: CalibrationTable, origin: str) -> MatchedTable:
    """Match a table with the tensors of a model, and add the ranges that follow from the matching ones.

    Args:
        graph: The graph of a float model with inferred shapes.
        table: The table.
        origin: The name of the table in messages, for example its path.

    Returns:
        The completed table, and which names match, are unknown or missing.

    Raises:
        TableError: The table is empty, or none of its names matches; gives the most similar names.
    """
    available = activations(graph)
    model_names = {value.name for node in graph for value in [*node.inputs, *node.outputs] if value is not None}
    model_names |= {value.name for value in graph.inputs} | set(graph.initializers)
    names = [*table.amax, *table.tensors_without_range]
    inferred = () if table.recipe else infer_ranges(graph, table)  # a recipe goes with the ranges as they are
    completed = replace(table, amax={**table.amax, **{tensor.name: tensor.amax for tensor in inferred}})
    unnamed = tuple(name for name in names if name.startswith(UNNAMED))
    unknown = [name for name in names if name not in model_names and not name.startswith(UNNAMED)]
    matched = tuple(name for name in names if name in available)
    if not matched:
        raise TableError(f"{origin}: {_mismatch_reason(names, unknown, unnamed, available)}")
    missing = [name for name in plan_quantization(graph).activations if name not in completed.amax]
    without_entry = available.difference(names)
    report = MatchReport(
        matched=matched,
        unusable=tuple(name for name in table.tensors_without_range if name in available),
        inferred=inferred,
        unknown=_with_similar(unknown, without_entry),
        unnamed=unnamed,
        not_activations=tuple(name for name in names if name in model_names and name not in available),
        missing=_with_similar(missing, unknown),
    )
    return MatchedTable(completed, report)


def _mismatch_reason(
    names: Sequence[str], unknown: Sequence[str], unnamed: Sequence[str], available: Collection[str]
) -> str:
    """The message for a table that has nothing in common with the model."""
    if not names:
        return "the table is empty: calibrate again"
    if len(unnamed) == len(names):
        return (
            f"all {len(names)} entries belong to unnamed layers ({unnamed[0]!r}), which cannot be matched with tensors "
            "of the model: name the layers, or calibrate the ONNX model again"
        )
    similar = [unmatched for unmatched in _with_similar(unknown, available) if unmatched.similar][:_MAX_SIMILAR]
    hints = "; ".join(f"{unmatched.name!r} is most similar to {_first_few(unmatched.similar)}" for unmatched in similar)
    if not hints:
        hints = f"it has {_first_few(names)}, the model {_first_few(sorted(available))}; none are similar"
    return (
        f"none of its {len(names)} names is a float activation of the model ({hints}): it belongs to another model, or "
        "to another export of it"
    )


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MAX_SIMILAR]))


def _with_similar(names: Collection[str], others: Collection[str]) -> tuple[Unmatched, ...]:
    pool = sorted(others)
    return tuple(
        Unmatched(name, tuple(difflib.get_close_matches(name, pool, _MAX_SIMILAR)) if index < _MAX_LOOKUPS else ())
        for index, name in enumerate(names)
    )
