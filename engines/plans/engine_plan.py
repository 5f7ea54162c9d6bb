"""`EnginePlan`: the kernels of a finished engine, as its builder logs them or an inspector lists them."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel, ConfigDict

from trt_ptq.engines.plans.inspector_json import parse_inspection
from trt_ptq.engines.plans.kernel import Kernel
from trt_ptq.engines.plans.rtx_log import parse_rtx_log

RTX = "tensorrt-rtx"


class EnginePlan(BaseModel):
    """What a TensorRT builder made of a model: kernels in execution order.

    `source` is the library that built the engine ("tensorrt-rtx" or "tensorrt") and `version` its version; `shapes` are
    those of the engine's inputs, with -1 for a dynamic size. `quantized` names the ONNX nodes that the model asks to
    run in INT8: convolutions and matrix products of dequantized operands; empty if that is not known. `warnings` say
    what could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    version: str
    kernels: tuple[Kernel, ...]
    shapes: dict[str, tuple[int, ...]] = {}
    quantized: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_rtx_log(cls, text: str, version: str = "") -> EnginePlan:
        """Read the kernels from the log of TensorRT-RTX's builder, at profiling verbosity DETAILED.

        Args:
            text: the message that begins with "Layers:", or a log that has it.
            version: version of TensorRT-RTX.

        Raises:
            EngineError: there is no such message, or none of its lines can be read.
        """
        kernels, shapes, warnings = parse_rtx_log(text)
        return cls(source=RTX, version=version, kernels=kernels, shapes=shapes, warnings=warnings)

    @classmethod
    def from_inspector(cls, text: str, *, source: str = "tensorrt", version: str = "", where: str = "") -> EnginePlan:
        """Read the kernels from the JSON of `IEngineInspector.get_engine_information`.

        Args:
            text: the JSON of TensorRT 10, 11 or TensorRT-RTX.
            source: the library that built the engine.
            version: its version.
            where: name of the engine, for messages.

        Raises:
            EngineError: not the inspector's JSON, or an engine that has only the names of its layers.
        """
        kernels, shapes, warnings = parse_inspection(text, where or "this engine")
        return cls(source=source, version=version, kernels=kernels, shapes=shapes, warnings=warnings)

    @property
    def num_kernels(self) -> int:
        """The number of kernels that do something on the device."""
        return sum(kernel.works for kernel in self.kernels)

    @property
    def bytes_moved(self) -> int:
        """Bytes that all kernels read and write."""
        return sum(kernel.bytes_moved for kernel in self.kernels if kernel.works)

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights, scales and other constants, each counted once: the engine file's content beside code."""
        return sum({tensor.name: tensor.nbytes for kernel in self.kernels for tensor in kernel.constants}.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the kernels whose number is known."""
        return sum(kernel.macs or 0 for kernel in self.kernels)

    @property
    def reformats(self) -> tuple[Kernel, ...]:
        """The kernels that only change layout or type: each reads and writes a whole tensor."""
        return tuple(kernel for kernel in self.kernels if kernel.works and kernel.reformat)

    @property
    def dynamic(self) -> bool:
        """Whether sizes are known only when the engine runs, and so neither bytes nor MACs."""
        tensors = (tensor for kernel in self.kernels for tensor in (*kernel.inputs, *kernel.outputs))
        return any(tensor.size is None for tensor in tensors)

    def precisions(self) -> dict[str, int]:
        """Number of kernels by the type in which they compute, most frequent first, without reformats."""
        counted = Counter(kernel.precision for kernel in self.kernels if kernel.precision is not None)
        return dict(counted.most_common())
