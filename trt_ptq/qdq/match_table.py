"""A table of an older network or another tool, brought to the model at hand: what fits, what not, what follows."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from trt_ptq.analysis.dataflow import activations
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import TableError
from trt_ptq.qdq.infer_ranges import InferredRange, infer_ranges
from trt_ptq.qdq.plan import plan_quantization

UNNAMED = "(Unnamed Layer*"  # TensorRT's own name for an output that the parser left without one; it counts layers
_NEAREST = 3
_MAX_SOUGHT = 50  # a thousand names against a thousand take over half a minute


@dataclass(frozen=True)
class Unmatched:
    """A name without its counterpart, and the most similar names of the other side that have none either.

    The similar names are looked up for the first 50 such names only.
    """

    name: str
    nearest: tuple[str, ...]


@dataclass(frozen=True)
class MatchReport:
    """How the names of a table fit those of a model.

    `matched`: names of the table that are float activations of the model. `unusable`: those of them whose scale is
    zero, denormal or not finite. `inferred`: ranges that the table lacks and that follow from others. `unknown`:
    names that the model does not have. `unnamed`: entries of layers without a name, which cannot be matched.
    `not_activations`: names of constants, shapes or tensors of another type. `missing`: tensors that the
    quantization plan needs and that have no range in the end; the nodes that read them stay float.
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
    """The table with its derived ranges added, and how it came about."""

    table: CalibrationTable
    report: MatchReport


def match_table(graph: ir.Graph, table: CalibrationTable, where: str) -> MatchedTable:
    """Match `table` with the model's tensors, and add the ranges that follow from those that match.

    `where` names the table in messages.

    Raises:
        TableError: an empty table, or one of which no name fits, with the nearest names.
    """
    available = activations(graph)
    everything = {value.name for node in graph for value in [*node.inputs, *node.outputs] if value is not None}
    everything |= {value.name for value in graph.inputs} | set(graph.initializers)
    names = [*table.amax, *table.tensors_without_range]
    derived = infer_ranges(graph, table)
    completed = replace(table, amax={**table.amax, **{one.name: one.amax for one in derived}})
    unnamed = tuple(name for name in names if name.startswith(UNNAMED))
    unknown = [name for name in names if name not in everything and not name.startswith(UNNAMED)]
    matched = tuple(name for name in names if name in available)
    if not matched:
        raise TableError(f"{where}: {_why_foreign(names, unknown, unnamed, available)}")
    missing = [name for name in plan_quantization(graph).activations if name not in completed.amax]
    without_entry = available.difference(names)
    report = MatchReport(
        matched=matched,
        unusable=tuple(name for name in table.tensors_without_range if name in available),
        inferred=derived,
        unknown=_with_nearest(unknown, without_entry),
        unnamed=unnamed,
        not_activations=tuple(name for name in names if name in everything and name not in available),
        missing=_with_nearest(missing, unknown),
    )
    return MatchedTable(completed, report)


def _why_foreign(
    names: Sequence[str], unknown: Sequence[str], unnamed: Sequence[str], available: Collection[str]
) -> str:
    """What to say of a table that has nothing in common with the model."""
    if not names:
        return "the table is empty: calibrate again"
    if len(unnamed) == len(names):
        return (
            f"all {len(names)} entries are of unnamed layers ({unnamed[0]!r}), which nothing ties to a tensor of the "
            "model: name the layers, or calibrate the ONNX model anew"
        )
    close = [one for one in _with_nearest(unknown, available) if one.nearest][:_NEAREST]
    hints = "; ".join(f"{one.name!r} is nearest to {_some(one.nearest)}" for one in close)
    if not hints:
        hints = f"it has {_some(names)}, the model {_some(sorted(available))}; none are alike"
    return (
        f"none of its {len(names)} names is a float activation of the model ({hints}): it was made for another model, "
        "or for another export of it"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_NEAREST]))


def _with_nearest(names: Collection[str], others: Collection[str]) -> tuple[Unmatched, ...]:
    pool = sorted(others)
    return tuple(
        Unmatched(name, tuple(difflib.get_close_matches(name, pool, _NEAREST)) if index < _MAX_SOUGHT else ())
        for index, name in enumerate(names)
    )
