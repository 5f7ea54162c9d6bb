"""Shape profiles are checked against the model before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from tests.networks import image_input, write
from trt_ptq.data.shape_profiles import check_profiles
from trt_ptq.engines.spec import parse_profiles
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import load_model


def test_profiles_are_for_all_open_inputs_or_for_none(tmp_path: Path) -> None:
    inputs = [image_input("a"), image_input("b"), image_input("fixed", batch=1)]
    nodes = [helper.make_node("Add", ["a", "b"], ["ab"]), helper.make_node("Add", ["ab", "fixed"], ["y"])]
    model = load_model(write(tmp_path / "three.onnx", nodes, [], inputs, ["y"]))
    check_profiles({}, model.inputs)
    check_profiles(parse_profiles(["a=1x16x8x8:2x16x8x8:4x16x8x8", "b=1x16x8x8:2x16x8x8:4x16x8x8"]), model.inputs)
    with pytest.raises(UsageError, match=r"--shape is missing for b: float32 \[n, 16, 8, 8\], which is dynamic too"):
        check_profiles(parse_profiles(["a=1x16x8x8:2x16x8x8:4x16x8x8"]), model.inputs)
