"""Parameters that take one of a few values, for the library and the command line alike; it imports nothing."""

from __future__ import annotations

from typing import Literal

MethodName = Literal["entropy", "minmax", "mse", "percentile"]
Method = Literal["auto", MethodName]
Mode = Literal["w8a8", "w8a16", "mixed"]
Effort = Literal["low", "medium", "high"]
CachePrecision = Literal["float", "int8"]
Technique = Literal["equalization", "rotation", "smoothquant", "gptq", "bias-correction"]
TechniqueChoice = Literal["auto", Technique]
HighPrecision = Literal["fp16", "fp32"]  # the precision of everything that is not INT8
Nonfinite = Literal["refuse", "skip"]
DeviceName = Literal["cpu", "cuda"]
BuilderName = Literal["auto", "trt", "rtx"]
BackendName = Literal[BuilderName, "none"]
Target = Literal["trt", "rtx"]  # the builder that a Q/DQ model is meant for
TargetChoice = Literal["auto", Target]
Task = Literal["text-generation"]
