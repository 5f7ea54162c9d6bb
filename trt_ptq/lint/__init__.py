"""Find what TensorRT refuses, gets wrong or runs slowly in a Q/DQ model; one module per family of rules.

Every rule states its effect, a remedy, and its evidence. "Observed" in the evidence means: an engine for such a model
was built with TensorRT-RTX 1.7.1, without a GPU, and its plan lists the operand types of convolutions and matrix
products; nothing was executed. "NVIDIA" refers to "Working with Quantized Types", TensorRT developer guide.
"""
