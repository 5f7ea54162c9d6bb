"""Observes convolutions in the blocked layout that ONNX Runtime computes them in.

On a CPU, ONNX Runtime stores the channels of a convolution in blocks of 8 or 16 (NCHWc). To output a tensor, it would
reorder it to NCHW, which costs more than counting. Statistics do not depend on the order of values, so the blocked
tensor is output instead, unless its channels do not fill the blocks: then it is padded.
"""

from __future__ import annotations

import onnx

from trt_ptq.calibration.observed.segments import names_read

_LARGEST_BLOCK = 16  # channels


def observe_before_reordering(proto: onnx.ModelProto) -> dict[str, str]:
    """Replace outputs that are reordered from an unpadded blocked tensor by that tensor; return new names by old."""
    graph = proto.graph
    reordered = {node.output[0]: node for node in graph.node if node.op_type == "ReorderOutput"}
    blocked = {}
    for value in graph.output:
        node = reordered.get(value.name)
        if (
            node is not None
            and _attribute(node, "channels") % _LARGEST_BLOCK == 0
            and not _attribute(node, "channels_last")
        ):
            blocked[value.name] = node.input[0]
    used = set(names_read(graph.node))
    for name in blocked:
        if name not in used:
            graph.node.remove(reordered[name])
    outputs = {blocked.get(value.name, value.name): value for value in graph.output}
    copies = []
    for name, value in outputs.items():
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = name
        copies.append(copy)
    del graph.output[:]
    graph.output.extend(copies)
    return blocked


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)
