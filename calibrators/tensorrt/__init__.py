"""The calibrators that TensorRT 10 drives: batches or tables in, INT8 ranges in its own builder.

Read calibrator.py first: the contract with TensorRT is there.
"""
