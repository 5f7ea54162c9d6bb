"""What is resolved, and refused, before any work: nodes, profiles, recipes, metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.networks import images, residual_cnn
from tests.pipeline.quantizing import quantized
from trt_ptq.errors import DataError, EngineError, MissingPackageError, ModelError, OutputError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.recipe import load_recipe


def excluded(out: Path) -> tuple[str, ...]:
    return load_recipe(out / "recipe.yaml").nodes_to_exclude


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"nodes_to_exclude": ["c1"]}, ("c1",)),
        ({"nodes_to_exclude": "Conv"}, ("c1", "c2")),
        ({"nodes_to_exclude": ["c?"]}, ("c1", "c2")),
        ({"nodes_to_exclude": ["c?", "Gemm"]}, ("c1", "c2", "y")),
        ({"nodes_to_include": ["Gemm"]}, ("c1", "c2", "a", "p")),
        ({"nodes_to_include": ["Conv", "Gemm"], "nodes_to_exclude": ["c1"]}, ("c1", "a", "p")),
    ],
    ids=str,
)
def test_nodes_are_named_by_output_op_type_or_pattern(
    cnn: Model, tmp_path: Path, config: dict[str, Any], expected: tuple[str, ...]
) -> None:
    quantized(cnn, tmp_path, search=False, techniques=(), max_drop="100%", **config)
    assert excluded(tmp_path) == expected


@pytest.mark.parametrize("parameter", ["nodes_to_exclude", "nodes_to_include"])
def test_an_unknown_node_is_refused_with_the_nearest_names(cnn: Model, tmp_path: Path, parameter: str) -> None:
    with pytest.raises(UsageError, match=rf"`{parameter}`.*'Cnv'.*'Conv'"):
        quantized(cnn, tmp_path / "out", **{parameter: ["Cnv"]})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["c1", "c[1x]"], ids=["output", "pattern"])
def test_an_edited_recipe_names_nodes_as_the_config_does(cnn: Model, tmp_path: Path, name: str) -> None:
    quantized(cnn, tmp_path)
    recipe = tmp_path / "recipe.yaml"
    written = recipe.read_text()
    recipe.write_text(written.replace("nodes_to_exclude: []", f"nodes_to_exclude: ['{name}', Gemm]"))
    quantized(cnn, tmp_path, method="auto", recipe=recipe)
    assert excluded(tmp_path) == ("c1", "y")
    recipe.write_text(written.replace("nodes_to_exclude: []", "nodes_to_exclude: [Cnv]"))
    with pytest.raises(UsageError, match=r"recipe\.yaml: nodes_to_exclude: .*'Cnv'.*'Conv'.*op types, or patterns"):
        quantized(cnn, tmp_path, method="auto", recipe=recipe)


@pytest.mark.parametrize(
    ("batch", "message"),
    [({"z": images(4)}, "wrong input names"), ({"x": images(0)}, "is empty")],
    ids=["name", "empty"],
)
def test_what_is_wrong_with_a_single_batch_comes_first(
    cnn: Model, tmp_path: Path, batch: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        quantized(cnn, tmp_path / "out", [batch])


def test_an_int8_model_without_int8_is_warned_of(cnn: Model, tmp_path: Path) -> None:
    without = quantized(cnn, tmp_path, nodes_to_exclude="*")
    assert any("no node runs in INT8" in warning for warning in without.warnings)
    assert without.report.verdict_basis == "a model in FP16, as no node runs in INT8"
    assert not any("no node runs in INT8" in warning for warning in quantized(cnn, tmp_path).warnings)


def test_a_recipe_repeats_the_run(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path / "first", nodes_to_exclude=["c2"], high_precision="fp32")
    recipe = tmp_path / "first" / "recipe.yaml"
    for name, given in {"path": recipe, "text": str(recipe), "loaded": load_recipe(recipe)}.items():
        quantized(cnn, tmp_path / name, method="auto", recipe=given)
        for file in ("model.int8.onnx", "recipe.yaml"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "first" / file).read_bytes()


def test_a_recipe_of_another_model_is_refused(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path / "first")
    other = load_model(residual_cnn(tmp_path / "other.onnx", seed=1))
    with pytest.raises(UsageError, match="another model"):
        quantized(other, tmp_path / "out", method="auto", recipe=tmp_path / "first" / "recipe.yaml")


def test_a_profile_of_an_unknown_input_is_refused(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown input 'z'"):
        quantized(cnn, tmp_path, shapes={"z": "1x2"})


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [("metric.txt", "file.py:function"), ("nowhere.py:metric", "no such Python file"), (3, "int")],
)
def test_a_metric_that_is_no_function_is_refused(cnn: Model, tmp_path: Path, evaluate: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantized(cnn, tmp_path, evaluate=evaluate)


def test_a_quantized_model_is_refused(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path)
    with pytest.raises(ModelError, match="already quantized"):
        quantized(load_model(tmp_path / "model.int8.onnx"), tmp_path / "again")


def unread() -> Iterator[Any]:
    """Data that takes long to read."""
    pytest.fail("the data was read")
    yield


@pytest.mark.parametrize(
    ("backend", "package", "extra"), [("rtx", "tensorrt_rtx", "rtx"), ("trt", "tensorrt", "trt11")]
)
def test_a_missing_backend_that_was_named_is_refused_before_any_work(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf'pip install "trt-ptq\[{extra}\]"'):
        quantized(cnn, tmp_path / "out", unread(), backend=backend)
    assert not (tmp_path / "out").exists()


def test_tensorrt_by_name_without_a_gpu_is_refused_before_any_work(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setattr("trt_ptq.engines.backends.gpu_name", lambda: None)
    with pytest.raises(EngineError, match="only on an NVIDIA GPU"):
        quantized(cnn, tmp_path / "out", unread(), backend="trt")


def test_the_output_folder_is_checked_before_a_generator_is_read(cnn: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        quantized(cnn, tmp_path / "file", unread())
