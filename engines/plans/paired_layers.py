"""Which kernels of two plans of one model do the same work: layer by layer, whatever each builder fused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.kernel import Kernel


@dataclass(frozen=True)
class PairedLayer:
    """The kernels of one layer in a plan, and in the plan that it is compared with.

    A layer is a convolution or matrix product (several, where one kernel does them) with the kernels that finish it:
    scales, bias, activation, residual, and conversions of its results. `nodes` are the ONNX nodes in the kernels with
    the product in both plans; no nodes: kernels that follow no product.
    """

    nodes: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    reference: tuple[Kernel, ...]


def pair_layers(plan: EnginePlan, reference: EnginePlan) -> list[PairedLayer]:
    """Pair the kernels of two plans of one model by the ONNX nodes in them, in execution order of `plan`.

    A kernel without a product belongs to the layer that made the largest of its inputs.
    """
    sides = (plan, reference)
    products = [[kernel for kernel in side.kernels if kernel.macs] for side in sides]
    shared = {node for kernel in products[0] for node in kernel.nodes}
    shared &= {node for kernel in products[1] for node in kernel.nodes}
    layer_of = _connected([[node for node in kernel.nodes if node in shared] for side in products for kernel in side])
    kernels: list[dict[str, list[Kernel]]] = []
    for side in sides:
        grouped = defaultdict(list)
        for kernel, owner in zip(side.kernels, _owners(side.kernels, layer_of), strict=True):
            if kernel.works:
                grouped[owner].append(kernel)
        kernels.append(grouped)
    nodes = defaultdict(list)
    for node, layer in layer_of.items():
        nodes[layer].append(node)
    order = dict.fromkeys((*kernels[0], *kernels[1]))
    return [
        PairedLayer(tuple(nodes[layer]), tuple(kernels[0].get(layer, ())), tuple(kernels[1].get(layer, ())))
        for layer in order
    ]


def _connected(groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """A common name for all nodes that are in one group, or in groups that share a node."""
    name_of: dict[str, str] = {}
    for group in groups:
        names = {name_of.get(node, node) for node in group}
        if names:
            common = min(names)
            name_of.update(dict.fromkeys(group, common))
            for node, name in name_of.items():
                if name in names:
                    name_of[node] = common
    return name_of


def _owners(kernels: Sequence[Kernel], layer_of: dict[str, str]) -> list[str]:
    """The layer of each kernel, "" for those that follow and precede none."""
    owner_of_tensor: dict[str, str] = {}
    owners: list[str] = []
    for kernel in kernels:
        owner = next((layer_of[node] for node in kernel.nodes if node in layer_of), "") if kernel.macs else ""
        if not owner:
            known = [tensor for tensor in kernel.inputs if owner_of_tensor.get(tensor.name)]
            owner = owner_of_tensor[max(known, key=lambda tensor: tensor.nbytes).name] if known else ""
        owners.append(owner)
        owner_of_tensor.update((tensor.name, owner) for tensor in kernel.outputs)
    for index in reversed(range(len(kernels))):  # what only prepares a product: its input, or weights
        if not owners[index] and kernels[index].works:
            written = {tensor.name for tensor in kernels[index].outputs}
            readers = (later for later in range(index + 1, len(kernels)) if _reads(kernels[later], written))
            owners[index] = next((owners[later] for later in readers if owners[later]), "")
    return owners


def _reads(kernel: Kernel, tensors: set[str]) -> bool:
    return any(tensor.name in tensors for tensor in kernel.inputs)
