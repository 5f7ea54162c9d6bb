"""Range methods of single layers: the tensors that they read get their ranges by another method than all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx_ir as ir

from trt_ptq._internal.listing import counted, first_few
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, has_usable_scale
from trt_ptq.errors import UsageError
from trt_ptq.qdq.plan import plan_quantization

_MOST_NAMED = 3


def activation_sources(graph: ir.Graph, statistics: Statistics, attention: bool = False) -> dict[str, tuple[str, ...]]:
    """The tensors with statistics whose ranges decide on the activations that each node reads in INT8.

    Args:
        graph: The graph of a float model with inferred shapes.
        statistics: Its statistics.
        attention: Whether the MatMuls of attention are quantized.

    Returns:
        Tensors by the first output of the node, both in graph order.
    """
    plan = plan_quantization(graph, attention=attention)
    sources: dict[str, tuple[str, ...]] = {}
    for read in plan.inputs:
        tensor = plan.range_source(read.tensor)
        tensor = statistics.shares_range.get(tensor, tensor)
        if read.axis is None and tensor in statistics.tensors:
            sources[read.node_output] = tuple(dict.fromkeys((*sources.get(read.node_output, ()), tensor)))
    return sources


def check_layer_methods(
    graph: ir.Graph,
    methods: Mapping[str, RangeMethod],
    attention: bool = False,
    groups: Iterable[tuple[str, ...]] = (),
) -> None:
    """Make sure that `with_layer_methods` accepts `methods`, before statistics are collected for it.

    Args:
        graph: The graph of a float model with inferred shapes.
        methods: Range methods by layer.
        attention: Whether the MatMuls of attention are quantized.
        groups: Layers that were given a method together.

    Raises:
        UsageError: See `with_layer_methods`; or no layer of a group reads an activation in INT8.
    """
    readers = plan_quantization(graph, attention=attention).readers
    known = {layer for layers in readers.values() for layer in layers}
    for group in groups:
        if group and not known.intersection(group):
            raise UsageError(
                f"layer_methods: {first_few([*map(repr, group)], _MOST_NAMED)}: no activation that is read there is in "
                "INT8, so a range method has no effect: omit it (MatMuls of attention need 'attention: true')"
            )
    for tensor, layers in readers.items():
        named = [layer for layer in layers if layer in methods]
        for layer in named[1:]:
            _require_same(tensor, named[0], layer, methods)


def _require_same(tensor: str, first: str, second: str, methods: Mapping[str, RangeMethod]) -> None:
    if methods[first] != methods[second]:
        raise UsageError(
            f"layer_methods: {first!r} ({methods[first].name}) and {second!r} ({methods[second].name}) read the same "
            f"tensor {tensor!r}, which has one range: give them the same method"
        )


def with_layer_methods(
    table: CalibrationTable,
    statistics: Statistics,
    sources: Mapping[str, tuple[str, ...]],
    methods: Mapping[str, RangeMethod],
) -> CalibrationTable:
    """Derive the ranges of what single layers read by methods of their own.

    Args:
        table: The ranges of `statistics` by the method of all other layers.
        statistics: The statistics.
        sources: See `activation_sources`.
        methods: Range methods by layer, named by its first output; layers that read no activation in INT8 have no
            effect.

    Raises:
        UsageError: Two layers with different methods read the same tensor, which has one range.
    """
    first: dict[str, str] = {}  # layers, by the tensor that they read
    for layer in methods:
        for tensor in sources.get(layer, ()):
            _require_same(tensor, first.setdefault(tensor, layer), layer, methods)
    ranges = {tensor: methods[layer].amax(statistics.tensors[tensor]) for tensor, layer in first.items()}
    ranges |= {name: ranges[source] for name, source in statistics.shares_range.items() if source in ranges}
    amax = {**table.amax, **{name: value for name, value in ranges.items() if has_usable_scale(value)}}
    provenance = table.provenance
    if provenance is not None:
        counts = Counter(methods[layer].name for layer in first.values())
        del counts[provenance.method]
        others = [f"{name} for {counted(count, 'tensor')}" for name, count in counts.items()]
        provenance = replace(provenance, method="; ".join([provenance.method, *others]))
    return replace(table, amax=dict(sorted(amax.items())), provenance=provenance)
