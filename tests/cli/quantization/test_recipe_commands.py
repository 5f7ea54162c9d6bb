"""Techniques, search and recipes, as a user would type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import refused, trt_ptq
from tests.networks import residual_cnn, sabotaged_cnn
from trt_ptq.recipe import load_recipe


def test_a_model_with_layers_in_float_is_made_again_by_its_recipe(npz_folder: Path, tmp_path: Path) -> None:
    model, out, again = sabotaged_cnn(tmp_path / "m.onnx"), tmp_path / "out", tmp_path / "again"
    done = trt_ptq(
        "quantize",
        model,
        "--data",
        npz_folder,
        "--backend",
        "none",
        "--out",
        out,
        "--method",
        "minmax",
        "--technique",
        "none",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"][-1]["name"] == "mixed precision: 1 of 4 layers excluded"
    recipe = out / "recipe.yaml"
    done = trt_ptq("quantize", model, "--data", npz_folder, "--backend", "none", "--out", again, "--recipe", recipe)
    assert done.returncode == 0, done.stderr
    for name in ("model.int8.onnx", "recipe.yaml"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    other = residual_cnn(tmp_path / "other.onnx")
    assert "a recipe for another model" in refused("quantize", other, "--data", npz_folder, "--recipe", recipe)


def test_an_edited_recipe_is_followed(npz_folder: Path, tmp_path: Path) -> None:
    model, out = sabotaged_cnn(tmp_path / "m.onnx"), tmp_path / "out"
    trt_ptq(
        "quantize", model, "--data", npz_folder, "--backend", "none", "--out", out, "--technique", "none", "--no-search"
    )
    recipe = out / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("nodes_to_exclude: []", "nodes_to_exclude: [c1, c3]"))
    done = trt_ptq(
        "quantize", model, "--data", npz_folder, "--backend", "none", "--out", out, "--recipe", recipe, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert [node["output"] for node in json.loads(done.stdout)["nodes"] if not node["is_int8"]] == ["c1", "c3"]
    assert load_recipe(recipe).nodes_to_exclude == ("c1", "c3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "minmax"], "--method is defined by"),
        (["--technique", "none"], "--technique is defined by"),
        (["--attention"], "--attention is defined by"),
        (["--high-precision", "fp32"], "--high-precision is defined by"),
    ],
)
def test_an_option_beside_a_recipe_that_says_the_same_is_refused(
    options: list[str], message: str, cnn_path: Path, npz_folder: Path, tmp_path: Path
) -> None:
    assert message in refused("quantize", cnn_path, "--data", npz_folder, "--recipe", tmp_path / "r.yaml", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--technique", "hope"],
            "is not one of 'auto', 'none', 'equalization', 'rotation', 'smoothquant', 'gptq', 'bias-correction'",
        ),
        (["--technique", "none", "--technique", "bias-correction"], "cannot be combined"),
        (["--method", "auto", "--percentile", "99"], "not to auto"),
        (["--recipe", "missing.yaml"], "cannot read missing.yaml"),
    ],
)
def test_wrong_choices_are_refused(options: list[str], message: str, cnn_path: Path, npz_folder: Path) -> None:
    assert message in refused("quantize", cnn_path, "--data", npz_folder, *options)
