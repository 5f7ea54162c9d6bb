"""Warnings about the result of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.quantizing import quantized
from trt_ptq.fp16.attention_masks import ClampedMask
from trt_ptq.onnx_io.load import Model
from trt_ptq.report.render import render_html
from trt_ptq.report.warnings import mask_warnings


def clipping(warnings: tuple[str, ...]) -> list[str]:
    return [warning for warning in warnings if " clips " in warning]


@pytest.mark.parametrize(
    ("excluded", "clipped", "used"),
    [((), "clips 2 tensors heavily", "3 of 3"), (("c2",), "clips 1 tensors heavily", "2 of 3")],
)
def test_ranges_that_the_model_uses_are_warned_of(
    cnn: Model, tmp_path: Path, excluded: tuple[str, ...], clipped: str, used: str
) -> None:
    result = quantized(cnn, tmp_path, method="percentile", percentile=60, nodes_to_exclude=excluded, search=False)
    (warning,) = clipping(result.warnings)
    assert clipped in warning
    assert f"Ranges ({used} are used, percentile" in render_html(result.report)


def test_ranges_that_no_int8_layer_reads_clip_nothing(cnn: Model, tmp_path: Path) -> None:
    result = quantized(
        cnn, tmp_path, method="percentile", percentile=60, nodes_to_exclude=("c1", "c2", "y"), search=False
    )
    assert not clipping(result.warnings)
    assert not any(tensor.used for tensor in result.report.tensors)


def test_clamped_mask_constants_are_named() -> None:
    sure, assumed = ClampedMask("sure", -3.4028234663852886e38), ClampedMask("seen", -1e9, -65216, assumed=True)
    assert mask_warnings([sure, assumed]) == [
        "constants of attention masks are smaller where the model is FP16, which changes no output: "
        "'sure' (-65504 for -3.403e+38)",
        "constants of attention masks are smaller where the model is FP16, which changes no output unless a row of "
        "scores is masked as a whole: no row of the data that was measured is: 'seen' (-65216 for -1e+09)",
    ]
    assert not mask_warnings([])
