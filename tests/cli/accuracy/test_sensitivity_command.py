"""trt-ptq sensitivity, as a user would type it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.cli.run import refused, trt_ptq
from tests.networks import images, sabotaged_cnn


@pytest.fixture
def sabotaged(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, its data and its statistics."""
    model, data, stats = sabotaged_cnn(tmp_path / "<m>.onnx"), tmp_path / "data.npz", tmp_path / "m.safetensors"
    np.savez(data, x=images(24))
    assert trt_ptq("calibrate", model, "--data", data, "-o", stats).returncode == 0
    return model, data, stats


def test_the_layer_that_costs_most_is_first(sabotaged: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, stats = sabotaged
    page = tmp_path / "page.html"
    done = trt_ptq("sensitivity", model, "--stats", stats, "--data", data, "-o", page)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert re.split(r"[│\s]+", rows[0])[1] == "c3"
    assert max(map(len, rows)) <= 80
    html = page.read_text()
    assert html.index("<td>c3</td>") < html.index("<td>c1</td>")
    assert "&lt;m&gt;.onnx" in html
    assert not re.search(r"https?://|<script|<link|\{\{", html)


def test_json_has_every_layer_in_graph_order_and_the_metric(sabotaged: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, stats = sabotaged
    (tmp_path / "metric.py").write_text(
        "import numpy as np\n"
        "def energy(run):\n"
        "    return {'energy': float(np.square(run({'x': np.ones((2, 16, 8, 8), np.float32)})['y']).sum())}\n"
    )
    options = ("--method", "mse", "--samples", 9, "--eval", f"{tmp_path / 'metric.py'}:energy", "--json")
    done = trt_ptq("sensitivity", model, "--stats", stats, "--data", data, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["samples"], found["method"]) == (16, "mse")
    assert [layer["node"] for layer in found["layers"]] == ["c1", "c2", "c3", "y0"]
    session = ort.InferenceSession(model)
    [exact] = session.run(None, {"x": np.ones((2, 16, 8, 8), np.float32)})
    energy = float(np.square(exact).sum())
    deviations = {layer["node"]: abs(layer["metrics"]["energy"] - energy) for layer in found["layers"]}
    assert max(deviations, key=lambda node: deviations[node]) == "c3"
    assert min(deviations.values()) > 0


def test_statistics_and_table_are_one_too_many(sabotaged: tuple[Path, Path, Path]) -> None:
    model, data, stats = sabotaged
    both = refused("sensitivity", model, "--stats", stats, "--table", stats, "--data", data)
    assert both == refused("sensitivity", model, "--data", data) == "give either --stats or --table"


def test_a_page_in_the_place_of_the_model_is_refused(sabotaged: tuple[Path, Path, Path]) -> None:
    model, data, stats = sabotaged
    before = model.read_bytes()
    assert str(model) in refused("sensitivity", model, "--stats", stats, "--data", data, "-o", model)
    assert model.read_bytes() == before
