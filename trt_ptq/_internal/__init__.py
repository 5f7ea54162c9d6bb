"""Helpers without knowledge of quantization."""
