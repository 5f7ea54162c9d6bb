"""Operators that mark a model as quantized."""

from __future__ import annotations

QDQ_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})

# Operators of ONNX and ONNX Runtime that compute on integers (QOperator format and dynamic quantization).
INTEGER_OPS = frozenset(
    {
        *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
        *("QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"),
        *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "QLinearWhere", "QAttention"),
        *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QEmbedLayerNormalization", "DynamicQuantizeLSTM"),
    }
)
