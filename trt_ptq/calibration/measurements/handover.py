"""Tensors that one pass over a part of a model hands over to the next, so that no pass computes them again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from trt_ptq.analysis.dataflow import bodies

_Kind = ir.DataType
_STORED = {_Kind.FLOAT, _Kind.FLOAT16, _Kind.DOUBLE, _Kind.BOOL, _Kind.INT32, _Kind.INT64, _Kind.INT8, _Kind.UINT8}


def handed_over(graph: ir.Graph, groups: Sequence[Collection[str]]) -> list[tuple[str, ...] | None]:
    """What has to be known after each pass but the last to compute the tensors of the passes after it.

    Args:
        graph: The float model.
        groups: The tensors of each pass, in graph order.

    Returns:
        Names of computed tensors for each of these passes; None where a tensor has no type that can be stored, or a
        later node has a body, which may read any tensor.
    """
    position = {node: index for index, node in enumerate(graph)}
    values = {value.name: value for node in position for value in node.outputs}
    results: list[tuple[str, ...] | None] = []
    end = -1
    for index, group in enumerate(groups[:-1]):
        made = (values[name].producer() for name in group if name in values)
        end = max([end, *(position[node] for node in made if node is not None)])
        results.append(_read_after(end, [name for later in groups[index + 1 :] for name in later], values, position))
    return results


def _read_after(
    end: int, wanted: Sequence[str], values: dict[str | None, ir.Value], position: dict[ir.Node, int]
) -> tuple[str, ...] | None:
    """The tensors up to node `end` that computing `wanted` takes."""
    read: dict[str, None] = {}
    open_values = [values[name] for name in wanted if name in values]
    seen = set(open_values)
    while open_values:
        value = open_values.pop()
        node = value.producer()
        if node is None:
            continue
        if position[node] <= end:
            if not isinstance(value.type, ir.TensorType) or value.dtype not in _STORED:
                return None
            read[str(value.name)] = None
            continue
        if next(bodies(node), None) is not None:
            return None
        new = {operand for operand in node.inputs if operand is not None} - seen
        seen |= new
        open_values += new
    return tuple(sorted(read))
