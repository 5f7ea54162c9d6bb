"""A LLaMA of 1.1 billion parameters with random weights: what it takes to export, calibrate and quantize it.

    python -m benchmarks.language_models.large FOLDER

exports it to FOLDER. Each step is a command of its own, of which time and memory are measured from outside. Memory is
twofold: `peak_bytes`, all that was resident at a time (VmHWM), with the pages of mapped weights, which the system takes
back when it needs them; and `anonymous_bytes`, what the process held for itself (RssAnon). The model, 4.4 GB in FP32,
is kept with the other models of the benchmarks.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.models.grimm import tales
from benchmarks.models.wheels import cache_folder
from benchmarks.results_file import ROOT, Figures
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.calibrators.table.table_file import save_table
from trt_ptq.calibrators.table.table_recipe import TableRecipe
from trt_ptq.language_models.export.huggingface import export_causal_lm
from trt_ptq.onnx_io.load import load_model, model_size_bytes
from trt_ptq.qdq.node_selection import select_weight_only

SHAPE = {  # that of TinyLlama
    **{"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22},
    **{"num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048},
}
_TEXTS, _TOKENS = 4, 32
_TRT_PTQ = ("-m", "trt_ptq")


def measure_step(step: str, _rows: Mapping[str, Figures]) -> Figures:
    """Time, memory and the size of the FP32 model for a step: "export", "calibrate", "w8a8", "w8a16" or "quantize"."""
    folder = cache_folder() / "large-llama"
    model, statistics = folder / "model.onnx", folder / "statistics.safetensors"
    exporting = ["-m", "benchmarks.language_models.large", folder]
    if step != "export" and not model.exists():
        measured(exporting)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as temporary:
        scratch = Path(temporary)
        if step == "export":
            figures = measured(exporting)
        elif step == "calibrate":
            figures = measured([*_TRT_PTQ, "calibrate", model, *_text(scratch), "-o", statistics])
        elif step == "quantize":
            options = ["--mode", "w8a16", "--backend", "none", "--out", scratch / "int8"]
            figures = measured([*_TRT_PTQ, "quantize", model, *_text(scratch), *options])
        else:
            table = scratch / "table.json"
            _write_table(statistics, model, table, weight_only=step == "w8a16")
            figures = measured([*_TRT_PTQ, "qdq", model, "--table", table, "-o", scratch / "int8.onnx"])
    return {**figures, "model_bytes": model_size_bytes(model)}


def measured(arguments: Sequence[object]) -> Figures:
    """Run `python ARGUMENTS...` and measure it.

    Raises:
        RuntimeError: it fails.
    """
    peak = {"VmHWM": 0, "RssAnon": 0}
    start = time.perf_counter()
    command = [sys.executable, *map(str, arguments)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition(":")
                if name in peak:
                    peak[name] = max(peak[name], int(value.split()[0]) * 1024)
            time.sleep(0.01)
        log.seek(0)
        lines = log.read().strip().splitlines()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(lines or ['no message'])[-1]}")
    return {
        "seconds": time.perf_counter() - start,
        "peak_bytes": peak["VmHWM"],
        "anonymous_bytes": peak["RssAnon"],
    }


def _text(folder: Path) -> list[object]:
    """Options for short texts and a tokenizer of bytes, which are written to `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    lines = [json.dumps({"text": tale[:_TOKENS]}) for tale in tales()[: 4 * _TEXTS]]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options: list[object] = ["--task", "text-generation", "--tokenizer", folder, "--data", folder / "texts.jsonl"]
    return [*options, "--samples", _TEXTS, "--max-length", _TOKENS]


def _write_table(statistics: Path, model: Path, path: Path, weight_only: bool) -> None:
    table = derive_table(load_statistics(statistics), METHODS["minmax"])
    if weight_only:
        layers = select_weight_only(load_model(model).to_ir().graph, ["*"])
        recipe = TableRecipe((), attention=False, high_precision="fp32", magnitudes={}, weight_only=layers)
        table = replace(table, recipe=recipe)
    save_table(table, path)


def main() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    export_causal_lm(model, partial / "model.onnx", "a LLaMA of random weights")
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


if __name__ == "__main__":
    main()
