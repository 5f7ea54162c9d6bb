"""Which layers pay in INT8 is looked for before tuning, which says what fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trt_ptq.engines.cost import load_gpu
from trt_ptq.errors import DataError, ModelError, TrtPtqError
from trt_ptq.pipeline import placement_step
from trt_ptq.pipeline.placement_step import Placed, place
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe


@pytest.mark.parametrize("error", [DataError, ModelError])
def test_a_technique_that_fails_is_left_to_tuning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[TrtPtqError]
) -> None:
    def build(_recipe: Recipe) -> None:
        raise error("SmoothQuant fails here")

    monkeypatch.setattr(placement_step, "has_tensorrt_rtx", lambda: True)
    recipe = Recipe(model=ModelIdentity("", ""), method="minmax", techniques=("smoothquant",), target="rtx")
    job: Any = SimpleNamespace(recipe=recipe, places_layers=True, gpu=load_gpu("rtx4090"))
    calibrated: Any = SimpleNamespace(profiles={})
    candidates: Any = SimpleNamespace(build=build)
    warning = "which layers pay in INT8 was not looked for: SmoothQuant fails here"
    assert place(job, calibrated, candidates, tmp_path) == Placed(recipe, warnings=(warning,))
