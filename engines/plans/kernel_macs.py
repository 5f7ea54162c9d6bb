"""Multiply-accumulates of a kernel, from the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trt_ptq.engines.plans.datatypes import FLOATS
from trt_ptq.engines.plans.kernel import KernelTensor, operations_of

_CONVOLUTIONS = {"correlation", "convolution", "caskconvolution"}
_TRANSPOSED = {"deconvolution", "caskdeconvolution"}
_PRODUCTS = {"gemm", "matrixmultiply", "caskgemm", "matrix_multiply"}
_WITHOUT = {"kgen", "avgpool", "maxpool", "resize", "reformat", "move", "pooling", "caskpooling", "noop", "constant"}
_WITHOUT |= {"signal", "wait", "shape_call", "softmax", "pointwise", "pointwisev2", "reduce", "shuffle", "slice"}
_OPERANDS = {"int8", "int4", *FLOATS}


def count_macs(
    name: str,
    kind: str,
    inputs: Sequence[KernelTensor],
    constants: Sequence[KernelTensor],
    outputs: Sequence[KernelTensor],
) -> int | None:
    """Multiply-accumulates of the convolutions and matrix products in a kernel.

    Returns:
        The count, 0 for a kernel that has neither, and None if it cannot be told: an unknown kind of kernel, a size
        that is known only when the engine runs, or shapes that do not fit together.
    """
    operations = operations_of(name)
    if "mha" in name and kind.lower() == "kgen":
        return _attention(inputs, outputs)
    transposed = kind.lower() in _TRANSPOSED or "Deco" in operations
    if transposed or kind.lower() in _CONVOLUTIONS or "Corr" in operations:
        return _convolution(inputs, constants, outputs, transposed)
    if kind.lower() in _PRODUCTS or "Fc" in operations:
        return _product([*inputs, *constants], outputs)
    return 0 if kind.lower() in _WITHOUT else None


def _convolution(
    inputs: Sequence[KernelTensor],
    constants: Sequence[KernelTensor],
    outputs: Sequence[KernelTensor],
    transposed: bool,
) -> int | None:
    """Each value of the output is a product over one filter; transposed, each value of the input is.

    Filters are [out, in / groups, ...], transposed [in, out / groups, ...]. Residuals have the rank of filters, too.
    """
    if not inputs or not outputs or not inputs[0].size or not outputs[0].size:
        return None
    source, target = (outputs[0], inputs[0]) if transposed else (inputs[0], outputs[0])
    filters = [
        tensor.shape
        for tensor in (*constants, *inputs[1:])
        if tensor.dtype in _OPERANDS and len(tensor.shape) == len(target.shape) > 2 and tensor.size
    ]
    for shape in filters:
        if shape[0] == target.shape[1] and shape[1] > 0 and source.shape[1] % shape[1] == 0:
            return (target.size or 0) * math.prod(shape[1:])
    return None


def _product(operands: Sequence[KernelTensor], outputs: Sequence[KernelTensor]) -> int | None:
    """[..., M, K] x [..., K, N], either of them perhaps transposed: K is the size that the output does not have.

    The two largest operands are taken for the factors; the others are scales, biases and residuals.
    """
    sized = [tensor for tensor in operands if tensor.dtype in _OPERANDS and tensor.size and len(tensor.shape) >= 2]
    if len(sized) < 2 or not outputs or not outputs[0].size:
        return None
    result = outputs[0].size
    candidates = [
        (left, right, shared)
        for index, left in enumerate(sized)
        for right in sized[index + 1 :]
        for shared in _shared(left.shape, right.shape)
        if _fits(left, right, shared, result)
    ]
    if not candidates:
        return None
    *_, inner = max(candidates, key=lambda found: (found[0].size or 0) * (found[1].size or 0))
    return result * inner


def _shared(left: tuple[int, ...], right: tuple[int, ...]) -> set[int]:
    return {*left[-2:]} & {*right[-2:]}


def _fits(left: KernelTensor, right: KernelTensor, shared: int, result: int) -> bool:
    """Whether [B, M, K] and [B, K, N] give B * M * N values, for a K of `shared`; B may be missing in one of them."""
    rows, columns = (left.size or 0) // shared, (right.size or 0) // shared
    batches = {1, math.prod(left.shape[:-2]), math.prod(right.shape[:-2])}
    return any(rows * columns == result * batch for batch in batches)


def _attention(inputs: Sequence[KernelTensor], outputs: Sequence[KernelTensor]) -> int | None:
    """Q [B, M, D] x K [B, D, N], and the scores [B, M, N] x V [B, N, E]; masks have other types or ranks."""
    factors = [tensor.shape for tensor in inputs if tensor.dtype in _OPERANDS and len(tensor.shape) == 3]
    if len(factors) != 3 or any(min(shape) < 0 for shape in factors) or not outputs:
        return None
    query, key, value = factors
    if key[1] != query[2] or value[1] != key[2]:
        return None
    return math.prod(query[:2]) * key[2] * (query[2] + value[2])
