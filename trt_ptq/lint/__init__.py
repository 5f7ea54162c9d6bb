"""What TensorRT would refuse, get wrong or run slowly in a Q/DQ model; one file for each family of rules.

Each rule's function says what it looks for, where the effect is written down, and what was seen when such a model was
really built. "Seen" means: TensorRT-RTX 1.7.1 built the engine here, without a GPU, and the engine's text says which
operands its convolutions and matrix products read. Nothing was executed. NVIDIA: "Working with Quantized Types".
"""
