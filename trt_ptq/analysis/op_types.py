"""Sets of ONNX operators that several modules share."""

from __future__ import annotations

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
WEIGHTED_OPS = CONVOLUTIONS | {"Gemm", "MatMul"}  # the operators with INT8 kernels, and the ones whose MACs are counted

# The output has the values of the input in another arrangement.
RESHAPING_OPS = frozenset({"Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})

SHAPE_OPS = frozenset({"Shape", "Size"})  # read the shape of a tensor, not its values

# f(s * x) = s * f(x) for s > 0, element by element.
POSITIVELY_HOMOGENEOUS_OPS = frozenset({"Relu", "LeakyRelu"})
