"""From the options of `quantize` to its config."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from trt_ptq.choices import TechniqueChoice
from trt_ptq.cli.commands.quantization.quantize_options import TechniqueName, quantize_config
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import UsageError
from trt_ptq.types import ShapeProfile


def test_options_that_are_not_given_keep_the_defaults() -> None:
    config = quantize_config(None, None, method=None, techniques=[], attention=False, high_precision=None)
    assert config == QuantizeConfig()


def test_a_percentile_alone_is_a_method() -> None:
    assert quantize_config(None, None, method=None, percentile=99.9).method == "percentile"


def test_no_technique_is_called_none() -> None:
    assert quantize_config(None, None, techniques=["none"]).techniques == ()


def test_shapes_are_parsed() -> None:
    shapes = quantize_config(None, ["x=1x3:2x3:4x3"]).shapes
    assert shapes == {"x": ShapeProfile((1, 3), (2, 3), (4, 3))}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "auto", "percentile": 99.0}, "`percentile`"),
        ({"techniques": ["none", "equalization"]}, "`techniques=none`"),
        ({"recipe": Path("r.yaml"), "high_precision": "fp16"}, "`high_precision` is defined by r.yaml"),
        ({"recipe": Path("r.yaml"), "techniques": ["none"]}, "`techniques` is defined by r.yaml"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        quantize_config(**{"recipe": None, "shape": None, **options})  # type: ignore[arg-type]


def test_every_technique_can_be_named() -> None:
    assert {choice.value for choice in TechniqueName} == {*get_args(TechniqueChoice), "none"}
