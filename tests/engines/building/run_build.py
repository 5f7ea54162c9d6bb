"""Builds a model with TensorRT's genuine bindings over a libnvinfer of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.engines.on_standins import LATEST, outcome_of
from tests.standins.libraries import Standins

BUILD = Path(__file__).with_name("standin_build.py")
AMAX = {"x": 1.0, "c1": 2.0, "r1": 3.0, "c2": 4.0, "a": 5.0, "r2": 6.0, "p": 6.0, "f": 6.0, "y": 7.0}
SHAPES = ["x=1x16x8x8:4x16x8x8:8x16x8x8"]


def build_on(
    standins: Standins,
    onnx: Path,
    out: Path,
    version: str = LATEST,
    refused_layers: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    given = {"onnx": str(onnx), "engine": str(out), "shapes": SHAPES, **options}
    outcome: dict[str, Any] = outcome_of(
        standins, [str(BUILD), json.dumps(given)], version, refused_layers=refused_layers
    )
    return outcome
