"""Data types as the builder and the inspector write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

BITS = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "float8": 8,
    "float4": 4,
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "uint8": 8,
    "int4": 4,
    "bool": 8,
}
FLOATS = ("float32", "float16", "bfloat16", "float64", "float8", "float4")

# A type is a word ("Half"), or part of a sentence with the format ("Row major linear FP16 format").
_WORDS = (
    (r"u_?int8", "uint8"),
    (r"int8", "int8"),
    (r"bf16|bfloat16", "bfloat16"),
    (r"fp16|half|float16", "float16"),
    (r"fp32|float|float32", "float32"),
    (r"fp64|double", "float64"),
    (r"fp8(?:e4m3|e5m2)?|float8", "float8"),
    (r"fp4(?:e2m1)?|float4", "float4"),
    (r"int64", "int64"),
    (r"int32", "int32"),
    (r"int4", "int4"),
    (r"bool", "bool"),
)
_PATTERNS = [(re.compile(rf"\b(?:{words})\b", re.IGNORECASE), dtype) for words, dtype in _WORDS]


def parse_dtype(text: str) -> str:
    """The type in `text`: "float16" for "Half" or "Row major linear FP16 format"; unknown text in lower case."""
    for pattern, dtype in _PATTERNS:
        if pattern.search(text):
            return dtype
    return text.strip().lower() or "unknown"


def count_bytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a tensor without padding; 0 if its type, or a size (-1), is unknown."""
    if dtype not in BITS or any(size < 0 for size in shape):
        return 0
    return math.ceil(math.prod(shape) * BITS[dtype] / 8)
