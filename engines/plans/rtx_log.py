"""Reads the finished engine from the log of TensorRT-RTX's builder, which needs no GPU.

At profiling verbosity DETAILED the builder logs one message that begins with "Layers:", and has a line for each kernel.
It is text for people, without a documented grammar: a line that cannot be read becomes a warning.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from trt_ptq.engines.plans.datatypes import parse_dtype
from trt_ptq.engines.plans.kernel import Kernel, KernelTensor
from trt_ptq.engines.plans.kernel_macs import count_macs
from trt_ptq.errors import EngineError

KERNELS = "Layers:"

_TENSORS = r"(\[.*?\])"
_KERNEL = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), "
    rf"Inputs: {_TENSORS}, (?:Constants: {_TENSORS}, )?Outputs: {_TENSORS}, "
    r"TacticName: (?P<tactic>.*?), StreamId: .*?Metadata: ?(?P<metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([-\d, ]*)\], .*?Datatype: (\w+), Format: [^}]*\}")
_INPUT = re.compile(r" ?Name: (.*?), IOMode: Input, DataType: \w+, Dimensions: \[([-\d, ]*)\]")
_NODE, _UNNAMED = "[ONNX Layer: ", "node_of_"


class ParsedEngine(NamedTuple):
    """What could be read of an engine: its kernels in execution order, the shapes of its inputs, and what could not."""

    kernels: tuple[Kernel, ...]
    shapes: dict[str, tuple[int, ...]]
    warnings: tuple[str, ...]


def parse_rtx_log(text: str) -> ParsedEngine:
    """Read the message of the builder that begins with "Layers:", alone or somewhere in a log.

    Raises:
        EngineError: there is no such message, or no line of it can be read.
    """
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if line.strip() == KERNELS), None)
    if start is None:
        raise EngineError(
            "this log of TensorRT-RTX has no list of kernels (`Layers:`): build at profiling verbosity DETAILED, with "
            "a logger that records VERBOSE messages"
        )
    kernels, warnings = [], []
    shapes: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if found := _INPUT.match(line):
            shapes[found[1]] = _sizes(found[2])
        elif "LayerType:" in line:
            kernel = _kernel(line)
            if kernel is None:
                warnings.append(f"line {number} of the builder's log could not be read: {line[:60]}")
            else:
                kernels.append(kernel)
    if not kernels:
        raise EngineError(
            "no kernel in this log of TensorRT-RTX could be read: its format is another than that of 1.5 to 1.7, which "
            "trt-ptq reads"
        )
    return ParsedEngine(tuple(kernels), shapes, (*warnings, *describe_gaps(kernels)))


def describe_gaps(kernels: list[Kernel]) -> list[str]:
    """What the kernels do not say, one sentence each."""
    gaps = []
    tensors = [tensor for kernel in kernels for tensor in (*kernel.inputs, *kernel.constants, *kernel.outputs)]
    if any(tensor.size is None for tensor in tensors):
        gaps.append("shapes are dynamic: sizes are known only when the engine runs, and so are bytes and MACs")
    elif uncounted := sorted({kernel.kind for kernel in kernels if kernel.macs is None and kernel.works}):
        gaps.append(f"MACs are unknown for some kernels of type {', '.join(uncounted)}: only their bytes count")
    if unsized := sorted({tensor.dtype for tensor in tensors if not tensor.nbytes and tensor.size}):
        gaps.append(f"tensors of unknown types count as 0 bytes: {', '.join(unsized)}")
    return gaps


def parse_nodes(metadata: str) -> tuple[str, ...]:
    """The ONNX nodes in a kernel's metadata: "[ONNX Layer: NAME]" each; a name may have brackets itself.

    A node without a name is named by its first output; TensorRT writes "node_of_OUTPUT".
    """
    parts = (part.rpartition("]")[0].removeprefix(_UNNAMED) for part in metadata.split(_NODE)[1:])
    return tuple(dict.fromkeys(part for part in parts if part))


def _kernel(line: str) -> Kernel | None:
    match = _KERNEL.match(line)
    if match is None:
        return None
    lists = [_tensors(text or "[]") for text in match.groups()[2:5]]
    if any(tensors is None for tensors in lists):
        return None
    inputs, constants, outputs = (tensors or () for tensors in lists)
    name, kind = match["name"], match["kind"]
    return Kernel(
        name=name,
        kind=kind,
        inputs=inputs,
        constants=constants,
        outputs=outputs,
        nodes=parse_nodes(match["metadata"]),
        macs=count_macs(name, kind, inputs, constants, outputs),
        tactic=match["tactic"],
    )


def _tensors(text: str) -> tuple[KernelTensor, ...] | None:
    """The tensors in a list, None if one of them cannot be read."""
    found = [KernelTensor.of(name, _sizes(sizes), parse_dtype(dtype)) for name, sizes, dtype in _TENSOR.findall(text)]
    return tuple(found) if len(found) == text.count("{ Name: ") else None


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size.strip())
