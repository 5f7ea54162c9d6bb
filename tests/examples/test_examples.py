"""The scripts in examples/ do what their first lines say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

import trt_ptq
from tests.decoders import sentences, tiny_llama, tiny_tokenizer
from tests.networks import images
from tests.standins import packages
from tests.standins.libraries import Standins, build
from tests.standins.processes import run_script

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "files"


def example(name: str) -> ModuleType:
    """The module examples/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def standins() -> Standins:
    """The stand-in libraries, compiled once."""
    return build()


@pytest.mark.slow
def test_a_cnn_is_quantized_from_a_folder_of_images(tmp_path: Path) -> None:
    result = example("cnn_image_folder").main(tmp_path)
    assert result.passed
    assert result.metrics["fp32"]["accuracy"] > 0.9
    assert onnx.load(result.model_path).graph.input[0].name == "x"


@pytest.mark.slow
def test_a_torch_bert_is_quantized_from_a_dataloader(tmp_path: Path) -> None:
    result = example("bert_classifier").main(tmp_path)
    assert result.passed
    assert result.metrics["fp32"]["accuracy"] > 0.9


@pytest.mark.slow
def test_a_small_language_model_is_quantized_with_text(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    tiny_llama().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "tale.txt").write_text(" ".join(sentences(80)))
    out = tmp_path / "out"
    result = example("smollm2").main(tmp_path / "model", tmp_path / "tale.txt", out, samples=16, max_length=24)
    assert result.metrics["int8"]["perplexity"] < 1.1 * result.metrics["fp32"]["perplexity"]
    assert result.report.language is not None
    assert len(result.report.language.generations) == 2


def test_an_old_cache_becomes_a_model_without_lint_errors(tmp_path: Path) -> None:
    model, cache, out = FILES / "qdq" / "tiny.onnx", tmp_path / "old.cache", tmp_path / "model.int8.onnx"
    stats = trt_ptq.calibrate(model, [np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)])
    stats.table("entropy").save(cache)
    quantized = example("migrate_cache").main(model, cache, out)
    assert quantized.num_int8_nodes > 0
    assert [finding for finding in trt_ptq.lint_model(out) if finding.severity == "error"] == []


def test_the_tensorrt_10_script_calibrates_on_the_standins(standins: Standins, cnn_path: Path, tmp_path: Path) -> None:
    data, engine = tmp_path / "calibration", tmp_path / "model.engine"
    data.mkdir()
    for index in range(3):
        np.savez(data / f"{index}.npz", x=images(8, seed=index))
    script = [str(ROOT / "examples" / "tensorrt10_builder.py"), str(cnn_path), str(data), str(engine)]
    done = run_script(standins, script, [packages.tensorrt_bindings(packages.TENSORRT_VERSIONS[-1])], modules=[])
    assert done.returncode == 0, done.stderr
    assert engine.stat().st_size > 0
    assert engine.with_suffix(".cache").read_text().startswith("TRT-101601-EntropyCalibration2\n")
