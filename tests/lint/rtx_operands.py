"""Build a model with TensorRT-RTX: the operand types of the engine's products, or the refusal."""

from __future__ import annotations

import re
from pathlib import Path

from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.provenance import ModelIdentity

_PRINTABLE = re.compile(rb"[\x20-\x7e]{16,}")
_NAME, _TYPE = re.compile(r' name="([^"]+)"'), re.compile(r" type=(\w+)")
_INPUT = re.compile(r" input=\{([^}]*)\}")
_PRODUCTS = ("corrltn={", "deconvolution={", "fully_connected={")


def operands(model: Path) -> dict[str, tuple[str, str]]:
    """Build an engine; for each convolution and matrix product in its text, by node, the types of its two operands.

    The text is not documented: it is a program that names each kernel, its tensors and their types.

    Raises:
        EngineError: TensorRT-RTX refuses the model.
    """
    engine = model.with_suffix(".engine")
    build_engine(EngineSpec(model, engine, "int8", ModelIdentity("graph", "weights")), "rtx")
    types, products = {}, {}
    for run in _PRINTABLE.findall(engine.read_bytes()):
        line = run.decode().lstrip()
        name = _NAME.search(line)
        if name and line.startswith("tensor={") and (dtype := _TYPE.search(line)):
            types[name[1]] = dtype[1]
        elif name and line.startswith(_PRODUCTS) and (inputs := _INPUT.search(line)):
            products[name[1]] = re.findall(r'"([^"]+)"', inputs[1])
    return {node: (types[inputs[0]], types[inputs[1]]) for node, inputs in products.items()}
