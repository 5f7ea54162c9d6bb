"""Warnings about the result of a run."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.quantizing import quantized
from trt_ptq.calibration.convergence import Stability
from trt_ptq.data.shape_profiles import match_profiles, wider_profile
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.fp16.attention_masks import ClampedMask
from trt_ptq.fp16.keep_fp32 import Fp32Node
from trt_ptq.onnx_io.load import Model
from trt_ptq.recipe import LayerMethod, Recipe
from trt_ptq.report.option_names import with_options
from trt_ptq.report.render import render_html
from trt_ptq.report.warnings import fp32_warnings, mask_warnings, profile_warnings, stability_method_warnings
from trt_ptq.types import ShapeProfile, TensorSpec


def clipping(warnings: tuple[str, ...]) -> list[str]:
    return [warning for warning in warnings if "heavily" in warning]


@pytest.mark.parametrize(
    ("excluded", "clipped", "used"),
    [((), "clips 2 tensors heavily", "3 of 3"), (("c2",), "clips 1 tensor heavily", "2 of 3")],
)
def test_ranges_that_the_model_uses_are_warned_of(
    cnn: Model, tmp_path: Path, excluded: tuple[str, ...], clipped: str, used: str
) -> None:
    result = quantized(cnn, tmp_path, method="percentile", percentile=60, nodes_to_exclude=excluded, search=False)
    (warning,) = clipping(result.warnings)
    assert clipped in warning
    assert f"Ranges ({used} are used, percentile" in render_html(result.report)


def test_all_range_methods_of_a_recipe_are_named(cnn: Model, tmp_path: Path) -> None:
    first = LayerMethod(layers=("c1",), method="percentile 60")
    recipe = Recipe(model=cnn.identity, method="percentile 70", layer_methods=(first,))
    (warning,) = clipping(quantized(cnn, tmp_path, method="auto", recipe=recipe).warnings)
    assert warning.startswith("methods percentile 70 and percentile 60 clip 2 tensors heavily")
    stability = Stability("percentile 70", 0.01, 100, True, {})
    (warning,) = stability_method_warnings(stability, recipe.method_names)
    assert "the ranges of percentile 70, but percentile 60 was selected" in warning
    assert not stability_method_warnings(stability, ["percentile 70"])


def test_ranges_that_no_int8_layer_reads_clip_nothing(cnn: Model, tmp_path: Path) -> None:
    result = quantized(
        cnn, tmp_path, method="percentile", percentile=60, nodes_to_exclude=("c1", "c2", "y"), search=False
    )
    assert not clipping(result.warnings)
    assert not any(tensor.used for tensor in result.report.tensors)


def test_clamped_mask_constants_that_may_matter_are_named() -> None:
    sure, assumed = ClampedMask("sure", -3.4028234663852886e38), ClampedMask("seen", -1e9, -65216, assumed=True)
    assert mask_warnings([sure, assumed]) == [
        "constants of attention masks are smaller where the model is FP16, which changes no output unless a row of "
        "scores is masked as a whole: no row of the data that was measured is: 'seen' (-65216 for -1e+09)",
    ]
    assert not mask_warnings([sure])


def test_an_epsilon_that_keeps_its_node_in_fp32_is_not_warned_of() -> None:
    epsilon, large = Fp32Node("guarded", "Add", "offset", "tiny"), Fp32Node("y", "Exp", "range", "'y' reaches 2e+05")
    assert fp32_warnings([epsilon]) == []
    assert fp32_warnings([epsilon, large]) == [
        "2 nodes stay in FP32, 1 of them as float16 cannot hold their values: Exp 'y' ('y' reaches 2e+05)"
    ]


def test_the_shapes_that_a_warning_offers_work_when_they_are_pasted() -> None:
    kinds = ("key", "value")
    names = ["input_ids", *(f"past_key_values.{layer}.{kind}" for layer in range(30) for kind in kinds), "scores.0"]
    inputs = [TensorSpec(name, np.dtype(np.float32), ("batch", "length")) for name in names]
    profiles = {spec.name: ShapeProfile((1, 0), (2, 8), (2, 64)) for spec in inputs}
    profiles["past_key_values.3.value"] = ShapeProfile((1, 0), (2, 8), (2, 32))
    (warning,) = profile_warnings(profiles, inputs)
    words = shlex.split(with_options(warning.partition(", such as ")[2]))
    options = [word for option, word in pairwise(words) if option == "--shape"]
    assert len(options) == 1 + 1 + 30 + 1  # the values differ, so each is named
    expected = {spec.name: wider_profile(profiles[spec.name], spec) for spec in inputs}
    assert match_profiles(parse_profiles(options), inputs) == expected
