"""What each layer takes in INT8 and in FP16, by the plans of both engines, and which set of layers is fastest.

A layer is a convolution or matrix product, with the kernels that finish it; see `pair_layers`. The estimate of a
mixed model adds up, for each layer, its product in its precision, and the other kernels as they are in the INT8 plan if
a layer in INT8 reads their result, else as in the FP16 plan. A builder fuses differently in a mixed model, so the
estimate only proposes sets of layers: their plans decide (see placement.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trt_ptq.engines.cost import Gpu, estimate_kernel
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.kernel import Kernel, KernelTensor
from trt_ptq.engines.plans.paired_layers import PairedLayer, pair_layers


@dataclass(frozen=True)
class LayerTimes:
    """Estimated seconds of one layer.

    Attributes:
        nodes: The quantizable nodes in it, by their first output; none for kernels that follow no product.
        int8: The product in INT8; `float16` likewise.
        rest_int8: The other kernels where a layer in INT8 reads the result; `rest_float16` where none does.
        readers: The layers, by index, that read the result in INT8.
        shape: Equal for layers of one operator and size.
    """

    nodes: tuple[str, ...]
    int8: float
    float16: float
    rest_int8: float
    rest_float16: float
    readers: frozenset[int]
    shape: tuple[object, ...]

    def seconds(self, in_int8: bool, read_in_int8: bool) -> float:
        """The estimate, where the layer runs in INT8 or not, and its result is read in INT8 or not."""
        rest = self.rest_float16
        if read_in_int8 or (in_int8 and not self.readers) or (in_int8 and not rest):
            rest = self.rest_int8
        return (self.int8 if in_int8 else self.float16) + rest


class ModelTimes:
    """Estimated seconds of a model with any set of its layers in INT8.

    Args:
        int8: Plan with all quantizable nodes in INT8.
        float16: Plan of the same model in FP16.
        outputs: First output of each quantizable node, by its name in plans.
        gpu: The GPU to estimate for.
    """

    def __init__(self, int8: EnginePlan, float16: EnginePlan, outputs: Mapping[str, str], gpu: Gpu) -> None:
        groups = pair_layers(int8, float16)
        owner = {tensor.name: index for index, group in enumerate(groups) for tensor in _read_by_products(group)}
        readers = _Readers(int8, owner)
        self.layers = tuple(_layer(group, index, readers, outputs, gpu) for index, group in enumerate(groups))
        self.quantizable = frozenset(index for index, layer in enumerate(self.layers) if layer.nodes)

    def seconds(self, in_int8: frozenset[int]) -> float:
        """The estimate with the layers `in_int8`, by index."""
        return sum(
            layer.seconds(index in in_int8, not layer.readers.isdisjoint(in_int8))
            for index, layer in enumerate(self.layers)
        )

    def fastest(self) -> frozenset[int]:
        """The layers to run in INT8 for the smallest estimate that moves of up to three neighbors find."""
        found = [self._improve(start) for start in (self.quantizable, frozenset[int]())]
        return min(found, key=self.seconds)

    def saved_by_int8(self, in_int8: frozenset[int]) -> dict[str, float]:
        """Estimated seconds that each node saves: with it in FP16, the model of `in_int8` would take so much longer."""
        base = self.seconds(in_int8)
        saved = {index: self.seconds(in_int8 - {index}) - base for index in in_int8}
        return {
            node: seconds / len(self.layers[index].nodes)
            for index, seconds in saved.items()
            for node in self.layers[index].nodes
        }

    def _improve(self, start: frozenset[int]) -> frozenset[int]:
        moves = sorted({tuple(sorted(move)) for move in self._moves()})
        best, least = start, self.seconds(start)
        improved = True
        while improved:
            improved = False
            for move in moves:
                changed = frozenset(move)
                for candidate in (best ^ changed, best | changed, best - changed):
                    seconds = self.seconds(candidate)
                    if seconds < least * (1 - 1e-9):
                        best, least, improved = candidate, seconds, True
        return best

    def _moves(self) -> Iterable[frozenset[int]]:
        for index, layer in enumerate(self.layers):
            readers = layer.readers & self.quantizable
            own = {index} & self.quantizable
            yield from (frozenset(move) for move in (own, readers, own | readers) if move)
            for reader in readers:
                yield frozenset(own | {reader})
                yield frozenset(own | {reader} | (self.layers[reader].readers & self.quantizable))


class _Readers:
    """Finds the layers that read a tensor in INT8, also behind kernels that hand INT8 on."""

    def __init__(self, plan: EnginePlan, owner: Mapping[str, int]) -> None:
        self._owner = owner
        self._next: dict[str, list[str]] = {}
        for kernel in plan.kernels:
            if not kernel.macs:
                written = [tensor.name for tensor in kernel.outputs if tensor.dtype == "int8"]
                for tensor in kernel.inputs:
                    self._next.setdefault(tensor.name, []).extend(written)

    def of(self, tensors: Iterable[str]) -> frozenset[int]:
        pending, seen = list(tensors), set(tensors)
        while pending:
            for name in self._next.get(pending.pop(), ()):
                if name not in seen:
                    seen.add(name)
                    pending.append(name)
        return frozenset(self._owner[name] for name in seen if name in self._owner)


def _read_by_products(group: PairedLayer) -> list[KernelTensor]:
    return [tensor for kernel in group.kernels if kernel.macs for tensor in kernel.inputs if tensor.dtype == "int8"]


def _layer(group: PairedLayer, index: int, readers: _Readers, outputs: Mapping[str, str], gpu: Gpu) -> LayerTimes:
    def is_product(kernel: Kernel) -> bool:
        return bool(kernel.macs) and any(node in outputs for node in kernel.nodes)

    def seconds(kernels: Iterable[Kernel], products: bool) -> float:
        return sum(estimate_kernel(kernel, gpu).seconds for kernel in kernels if is_product(kernel) == products)

    nodes = dict.fromkeys(
        outputs[node] for kernel in group.kernels if is_product(kernel) for node in kernel.nodes if node in outputs
    )
    written = [tensor.name for kernel in group.kernels for tensor in kernel.outputs if tensor.dtype == "int8"]
    shapes = tuple(
        (kernel.kind, *(tensor.shape for tensor in (*kernel.inputs, *kernel.outputs)))
        for kernel in group.reference
        if is_product(kernel)
    )
    return LayerTimes(
        nodes=tuple(nodes),
        int8=seconds(group.kernels, True),
        float16=seconds(group.reference, True),
        rest_int8=seconds(group.kernels, False),
        rest_float16=seconds(group.reference, False),
        readers=readers.of(written) - {index},
        shape=shapes,
    )
