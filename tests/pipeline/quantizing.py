"""Quantizes small networks with pictures, quickly: by one range method and without engines, unless asked otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.api.inputs.model_input import ModelLike
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.sources import ArraySource
from trt_ptq.pipeline import QuantizeResult, quantize
from trt_ptq.types import ProgressCallback


def source(samples: int = 40, batch_size: int = 4, seed: int = 0) -> ArraySource:
    return ArraySource("images.npz", {"x": images(samples, seed)}, batch_size)


def quantized(
    model: ModelLike,
    out: Path,
    data: Any = None,
    *,
    evaluate: Any = None,
    test_data: Any = None,
    progress: ProgressCallback | None = None,
    **config: Any,
) -> QuantizeResult:
    """The result of `quantize`; `config` are fields of `QuantizeConfig`."""
    return quantize(
        model,
        source() if data is None else data,
        evaluate=evaluate,
        test_data=test_data,
        output_dir=out,
        config=QuantizeConfig(**{"method": "minmax", "backend": "none", **config}),
        progress=progress,
    )


def chain_path(folder: Path) -> Path:
    """Two convolutions, which equalization changes."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"]),
    ]
    weights = [weight(name, CHANNELS, CHANNELS, 1, 1) for name in ("w1", "w2")]
    return write(folder / "m.onnx", nodes, weights, [image_input()], ["y"])
