"""How the report shows what the number of samples did to the ranges."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests.networks import CHANNELS, images, weight, write
from trt_ptq.calibration.convergence import MethodTrajectory, Trajectory
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.sources import ArraySource
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.pipeline import quantize
from trt_ptq.report.render import render_html
from trt_ptq.report.schema import Report
from trt_ptq.report.trajectory_plots import scale_plots


def run(model: Model, out: Path, until_stable: float | None = None) -> Report:
    source = ArraySource("images.npz", {"x": images(320)}, batch_size=4)
    config = QuantizeConfig(method="mse", until_stable=until_stable, backend="none")
    return quantize(model, source, output_dir=out, config=config).report


def test_the_report_has_the_ranges_of_every_method_over_the_samples(cnn: Model, tmp_path: Path) -> None:
    report = run(cnn, tmp_path)
    assert report.trajectory.samples == [8, 12, 16, 24, 32, 48, 64, 92, 128, 184, 256]
    assert {trajectory.method for trajectory in report.trajectory.methods} == {
        method.name for method in METHODS.values()
    }
    chosen = report.trajectory.methods[0]
    scales = {row.name: row.scale for row in report.tensors}
    assert chosen.method == "mse"
    for name, curve in chosen.slowest.items():
        assert curve[-1] == pytest.approx(scales[name])
    page = render_html(report)
    assert page.count('<svg class="plot"') == len(METHODS)
    assert f"<td>{chosen.worst[0]:.1%}</td>" in page


def test_quantize_stops_when_its_own_method_is_stable(cnn: Model, tmp_path: Path) -> None:
    report = run(cnn, tmp_path, until_stable=0.05)
    assert report.stability is not None
    assert report.stability.stable
    assert report.stability.method == "mse"
    assert report.fingerprint.samples == report.stability.samples < 256
    assert str(report.stability) in render_html(report)


def test_what_never_settled_is_a_warning_that_names_tensors(cnn: Model, tmp_path: Path) -> None:
    warnings = run(cnn, tmp_path, until_stable=1e-6).warnings
    message = next(warning for warning in warnings if warning.startswith("not stable after all 256 samples"))
    assert "ranges of method mse have changed by more than 0.0001%: '" in message


def test_a_plot_marks_samples_and_scales_relative_to_the_final_one() -> None:
    method = MethodTrajectory("m<x>", [0.5, 0.0], [0.75, 0.0], {"<t>": [0.5, 2.0], "dead": [1.0, 0.0]})
    (plot,) = scale_plots(Trajectory([8, 16], [method]))
    assert [curve.tensor for curve in plot.curves] == ["<t>"]  # a tensor that ends as zeros has no final scale
    assert [mark.text for mark in plot.x_marks] == ["8", "16"]
    assert [mark.text for mark in plot.y_marks] == ["0.25", "1", "1.1"]
    (first, last) = (point.split(",") for point in plot.curves[0].points.split())
    assert (first[0], last[0]) == (plot.x_marks[0].at, plot.x_marks[1].at)
    assert last[1] == plot.final_y
    assert float(first[1]) > float(last[1])  # SVG counts downwards


def test_the_page_shows_the_distance_to_the_final_range(cnn: Model, tmp_path: Path) -> None:
    method = MethodTrajectory("m<x>", [0.5, 0.0], [0.75, 0.0], {"<t>": [0.5, 2.0]})
    report = run(cnn, tmp_path).model_copy(update={"trajectory": Trajectory([8, 16], [method])})
    page = render_html(report)
    assert "<td>m&lt;x&gt;: largest distance of the closest 90 % of the tensors</td><td>50.0%</td><td>0.0%</td>" in page
    assert "<td>m&lt;x&gt;: largest distance of all tensors</td><td>75.0%</td><td>0.0%</td>" in page
    assert "<title>&lt;t&gt;</title>" in page


def test_ranges_that_never_moved_are_shown_too(cnn: Model, tmp_path: Path) -> None:
    trajectory = Trajectory([5], [MethodTrajectory("minmax", [0.0], [0.0], {})])
    report = run(cnn, tmp_path).model_copy(update={"trajectory": trajectory})
    assert "no range moved after half of the samples" in render_html(report)


def test_shapes_that_were_not_read_are_told_of(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Conv", ["c", "w"], ["y"])]
    opened = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, "h", "w"])
    model = load_model(write(tmp_path / "m.onnx", nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [opened], ["y"]))
    expected = "the shape profiles come from the 128 samples"
    assert any(warning.startswith(expected) for warning in run(model, tmp_path / "a", until_stable=0.5).warnings)
    assert not any("shape profiles" in warning for warning in run(model, tmp_path / "b").warnings)
