"""Calibrators for TensorRT 10 and older: TensorRT's builder calls them for batches or for a calibration cache.

Read base.py first: it defines the contract with TensorRT.
"""
