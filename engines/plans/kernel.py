"""One kernel of a finished engine: what it computes, and what it reads and writes."""

from __future__ import annotations

import math
import re

from pydantic import BaseModel, ConfigDict

from trt_ptq.engines.plans.datatypes import BITS, FLOATS, count_bytes

_REFORMATS = {"reformat", "move"}
_NO_WORK = {"noop", "constant", "signal", "wait", "shape_call"}  # aliases, constants, synchronization, sizes
_OPAQUE = "ForeignNode["  # a subgraph compiled by a Myelin kernel, without details
_INT8_TACTIC = re.compile(r"i8i8|i8i32|i8f32|i8f16|imma|int8", re.IGNORECASE)
# Myelin names a kernel by its operations, shortened to at most four letters: __myl_CastReshTran_myl0_3.
_GENERATED = re.compile(r"_+myl_([A-Z]\w*?)(?:_myl\d+_\d+|_0x\w+)?$")
_MOVING = {"Cast", "Conc", "Move", "Pad", "Repl", "Resh", "Slic", "Tran"}


class KernelTensor(BaseModel):
    """A tensor that a kernel reads or writes.

    `shape` has -1 for a size that is known only when the engine runs; `nbytes` is 0 if it cannot be computed. `dtype`
    is "float32", "float16", "int8", ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], dtype: str) -> KernelTensor:
        """A tensor whose size in bytes follows from its shape and type."""
        return cls(name=name, shape=shape, dtype=dtype, nbytes=count_bytes(shape, dtype))

    @property
    def size(self) -> int | None:
        """The number of elements; None if it is known only when the engine runs."""
        return None if min(self.shape, default=0) < 0 else math.prod(self.shape)


class Kernel(BaseModel):
    """One kernel (TensorRT calls it a layer), after fusion.

    `kind` is TensorRT's layer type; `constants` are weights, scales and biases; `nodes` are the names of the ONNX nodes
    in it. `macs` are its multiply-accumulates, 0 for a kernel without matrix product or convolution, None if they
    cannot be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    inputs: tuple[KernelTensor, ...] = ()
    constants: tuple[KernelTensor, ...] = ()
    outputs: tuple[KernelTensor, ...] = ()
    nodes: tuple[str, ...] = ()
    macs: int | None = None
    tactic: str = ""

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations in a kernel that Myelin generated, by its name: ("Cast", "Resh"); empty for others."""
        return operations_of(self.name)

    @property
    def bytes_read(self) -> int:
        """Bytes of the inputs and constants. Of a table that is gathered from, at most the rows that are written."""
        inputs = sum(tensor.nbytes for tensor in self.inputs)
        if "Gath" not in self.operations:
            return inputs + sum(tensor.nbytes for tensor in self.constants)
        rows = max((tensor.size or 0 for tensor in self.outputs), default=0)
        return inputs + sum(
            min(tensor.nbytes, count_bytes((rows,), tensor.dtype)) if rows else tensor.nbytes
            for tensor in self.constants
        )

    @property
    def bytes_written(self) -> int:
        """Bytes of the outputs."""
        return sum(tensor.nbytes for tensor in self.outputs)

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def works(self) -> bool:
        """Whether it does anything on the device: aliases, constants and synchronization do not."""
        return self.kind.lower() not in _NO_WORK and bool(self.inputs or self.outputs)

    @property
    def reformat(self) -> bool:
        """Whether it only changes the layout or the type of what it reads."""
        if self.kind.lower() in _REFORMATS:
            return True
        return bool(self.operations) and set(self.operations) <= _MOVING

    @property
    def precision(self) -> str | None:
        """The type in which it computes: "int8", "float16", ...; "unknown" if the engine does not say.

        None if it computes nothing. A kernel that reads INT8 only to dequantize it computes in the type of its output.
        """
        if _OPAQUE in self.name:
            return "unknown"
        if not self.works or self.reformat:
            return None
        data = [tensor for tensor in self.inputs if tensor.dtype in ("int8", *FLOATS)]
        weights = any(tensor.dtype == "int8" and (tensor.size or 0) > 1 for tensor in self.constants)
        int8 = weights or _INT8_TACTIC.search(self.tactic) or any(tensor.dtype == "int8" for tensor in self.outputs)
        if int8 and data and all(tensor.dtype == "int8" for tensor in data):
            return "int8"
        dtypes = [tensor.dtype for tensor in (*self.outputs, *self.inputs)]
        return next((dtype for dtype in dtypes if dtype in FLOATS), dtypes[0] if dtypes[0] in BITS else "unknown")


def operations_of(name: str) -> tuple[str, ...]:
    """The operations in the name of a kernel that Myelin generated; empty for another name."""
    match = _GENERATED.search(name)
    return tuple(re.findall(r"[A-Z][a-z0-9]*", match[1])) if match else ()
