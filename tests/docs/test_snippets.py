"""The Python and shell blocks of README and documentation work as they stand, on a small model."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import trt_ptq
from tests.cli.run import trt_ptq as command
from tests.decoders import sentences, tiny_llama, tiny_tokenizer
from tests.networks import images, residual_cnn
from trt_ptq.calibrators.table.table_file import save_table
from trt_ptq.engines.cost import load_gpu

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md"])
TESTED_ELSEWHERE = {"migrating-to-tensorrt-11.md", "calibration-at-scale.md", "cli.md", "docker.md"}
NEEDS_TENSORRT = ("--implicit", "inspect", "bench")
METRIC = "metric.py"
MADE_BEFORE = {  # what a page takes from another page: the command that makes it
    "stats.safetensors": ["calibrate", "model.onnx", "--data", "calibration/", "-o", "stats.safetensors"],
    "int8/recipe.yaml": [
        *("quantize", "model.onnx", "--data", "calibration/", "--out", "int8/", "--backend", "none"),
        *("--max-drop", "50%"),
    ],
}


def commands(page: Path) -> list[str]:
    """Indented or fenced lines that start with trt-ptq, without the comment behind them."""
    lines = re.findall(r"^(?: {4})?(trt-ptq .+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"\s{2,}#.*$", "", line) for line in lines]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the pages speak of: a model, calibration and test data, a metric, statistics, a table, results."""
    monkeypatch.chdir(tmp_path)
    residual_cnn(Path("model.onnx"))
    for folder, seed in (("calibration", 0), ("data", 0), ("test", 50)):
        Path(folder).mkdir()
        for index in range(10):
            np.savez(f"{folder}/{index}.npz", x=images(24, seed=seed + index))
    Path(METRIC).write_text(
        "import numpy as np\n\n\ndef accuracy(run, split):\n"
        "    x = np.load('test/0.npz' if split == 'select' else 'test/1.npz')['x']\n"
        "    return {'accuracy': 1.0 + 0 * float(run({'x': x})['y'].sum())}\n"
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "getting-started.md", "accuracy.md", "range-methods.md", "index.md"])
def test_every_command_of_a_page_runs(page: str, workplace: Path) -> None:
    """In the order of the page; without engines, which other tests build."""
    ran = 0
    for line in commands(next(path for path in PAGES if path.name == page and path.parent != ROOT / "examples")):
        arguments = shlex.split(line)[1:]
        if any(word in arguments for word in NEEDS_TENSORRT):
            continue
        if arguments[0] == "quantize":
            arguments += ["--backend", "none", "--max-drop", "50%"]
        if arguments[0] == "build":
            arguments = [re.sub(r"^x=.*", "x=1x16x8x8:4x16x8x8:8x16x8x8", word) for word in arguments]
        for made, makes in MADE_BEFORE.items():
            if made in arguments and not Path(made).exists():
                assert command(*makes, cwd=workplace).returncode == 0
        done = command(*arguments, cwd=workplace)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        ran += 1
    assert ran


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_of_the_pages_is_one_that_exists(path: Path) -> None:
    if path.name in TESTED_ELSEWHERE:
        return
    for line in commands(path):
        words = shlex.split(line)[1:]
        name = words[: 2 if words[0] == "cache" else 1]
        if words[0].startswith("-"):
            continue
        done = command(*name, "--help")
        assert done.returncode == 0, line
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert [option for option in options if option not in done.stdout] == [], line


def test_the_python_of_the_readme_runs(workplace: Path) -> None:
    quick_start, calibrator = python_blocks(ROOT / "README.md")
    names: dict[str, object] = {"accuracy": f"{METRIC}:accuracy"}
    code = quick_start.replace("max_drop=0.01", 'max_drop=0.01, backend="none"')
    exec(compile(code, "README.md", "exec"), names)
    assert isinstance(names["result"], trt_ptq.QuantizeResult)
    ast.parse(calibrator)  # runs on the stand-ins, as examples/tensorrt10_builder.py


def test_the_python_of_engine_plans_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
    save_table(trt_ptq.calibrate("model.onnx", "calibration/").table("minmax"), Path("calibration.json"))
    (code,) = python_blocks(ROOT / "docs" / "engine-plans.md")
    names: dict[str, object] = {}
    exec(compile(code, "engine-plans.md", "exec"), names)
    assert isinstance(names["int8"], trt_ptq.EnginePlan)
    assert "float16" in capsys.readouterr().out


def test_the_figures_of_a_gpu_in_the_documentation_are_read(workplace: Path) -> None:
    page = (ROOT / "docs" / "engine-plans.md").read_text(encoding="utf-8")
    (figures,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    Path("mine.yaml").write_text(figures)
    assert load_gpu("mine.yaml").rtx


@pytest.mark.slow
def test_the_language_model_page_runs(decoder_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands on an exported model, its Python on a Hugging Face one."""
    monkeypatch.chdir(tmp_path)
    tiny_llama().save_pretrained("model")
    tiny_tokenizer().save_pretrained("model")
    texts = sentences(60, words=30)
    Path("prompts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    Path("prompts.txt").write_text("\n\n".join(texts))
    Path("held-out.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in sentences(9, seed=1)))
    Path("model.onnx").write_bytes(decoder_path.read_bytes())
    quickly = ["--samples", "12", "--method", "minmax", "--technique", "none", "--no-search", "--backend", "none"]
    page = ROOT / "docs" / "language-models.md"
    for line in commands(page):
        arguments = [word.replace("256", "32").replace("model/", "model") for word in shlex.split(line)[1:]]
        options = {"quantize": [*quickly, "--max-drop", "9%"], "calibrate": quickly[:2]}.get(arguments[0], [])
        done = command(*arguments, *options, cwd=tmp_path)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    names: dict[str, object] = {}
    first, second = python_blocks(page)
    fast = 'max_length=32, samples=12, method="minmax", techniques=(), search=False, backend="none", max_drop=0.09'
    exec(compile(first.replace("max_length=256, samples=100", fast) + second, page.name, "exec"), names)
    assert callable(names["likelihood"])
    result = names["result"]
    assert isinstance(result, trt_ptq.QuantizeResult)
    assert result.report.model == "torch module LlamaForCausalLM"
    assert (result.output_dir / "model.fp32.onnx").is_file()


def test_the_python_of_getting_started_runs(workplace: Path) -> None:
    _, quick_start, steps = python_blocks(ROOT / "docs" / "getting-started.md")
    names: dict[str, object] = {}
    code = quick_start.replace("max_drop=0.01", 'max_drop=0.5, backend="none"').replace("0.5,", '"50%",')
    exec(compile(code + steps, "getting-started.md", "exec"), names)
    assert Path("model.int8.onnx").exists()
    assert Path("calibration.cache").exists()
