"""SmolLM2-135M with its cache: texts, the model after SmoothQuant with its statistics, and how much a model loses."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.models import smollm2_135m
from benchmarks.models.texts import Split
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.statistics.statistics_file import load_statistics, save_statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.calibrators.table.table_recipe import HeadScales
from trt_ptq.evaluation.runners.onnx_runner import Run, onnx_runner, temporary_model_file
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.judging.agreement import next_token_agreement
from trt_ptq.language_models.judging.perplexity import TextWindow, perplexity
from trt_ptq.language_models.kv_cache.cache_scales import measure_cache_scales
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.stored_weights import StoredWeight, StoredWeights
from trt_ptq.transforms.alpha_search import apply_smoothquant
from trt_ptq.transforms.rotation.rotate import rotate_stream
from trt_ptq.transforms.rounded_weights import round_weights
from trt_ptq.types import Array

CALIBRATION_SAMPLES, CALIBRATION_TOKENS = 32, 256
_KL_WINDOWS = 4


def windows(split: Split, count: int, tokens: int) -> Array:
    """Tokens [count, tokens] of `count` windows, spread over the tales of `split`."""
    ids = smollm2_135m.tokens()[split]
    whole = ids[: len(ids) // tokens * tokens].reshape(-1, tokens)
    return np.stack([whole[index * len(whole) // count] for index in range(count)])


@lru_cache(maxsize=1)
def plain() -> Model:
    """The FP32 model."""
    return load_model(smollm2_135m.decoder())


def calibration_data(folder: Path) -> DecoderBatches:
    """32 texts of 256 tokens; the plain model fills the caches of decode steps in `folder`."""
    samples = [
        TokenSample(ids, f"window {index}")
        for index, ids in enumerate(windows("calibration", CALIBRATION_SAMPLES, CALIBRATION_TOKENS))
    ]
    return DecoderBatches(plain().path, decoder_layout(plain()), samples, folder, batch_size=4)


def smooth(folder: Path, code: str, rotated: bool) -> tuple[Model, CalibrationTable]:
    """The model after SmoothQuant and its min-max ranges, made once for a version of the code.

    Args:
        folder: where they are kept.
        code: the version; see `code_version`.
        rotated: rotate the residual stream before SmoothQuant.
    """
    kind = "rotated" if rotated else "smooth"
    model, statistics = folder / f"{kind}-{code}.onnx", folder / f"{kind}-{code}.safetensors"
    if not statistics.exists():
        for old in folder.glob(f"{kind}-*"):
            old.unlink()
        with tempfile.TemporaryDirectory() as temporary:
            data = calibration_data(Path(temporary))
            start = _rotated(Path(temporary) / "rotated.onnx") if rotated else plain()
            save_model(apply_smoothquant(start, data).model, model)
            loaded = load_model(model)
            save_statistics(collect_statistics(loaded, data, select_calibration_tensors(loaded)), statistics)
    return load_model(model), derive_table(load_statistics(statistics), METHODS["minmax"])


def _rotated(path: Path) -> Model:
    save_model(rotate_stream(plain()).model, path)
    return load_model(path)


def cache_scales() -> dict[str, HeadScales]:
    """The scales of an INT8 cache."""
    with tempfile.TemporaryDirectory() as caches:
        return measure_cache_scales(plain(), calibration_data(Path(caches)), decoder_layout(plain()))


def rounded(model: Model, file: Path) -> StoredWeights:
    """GPTQ's weights of `model`, made once: the integers are in `file`, and which they are in a file beside it."""
    index = file.with_suffix(".json")
    if not index.exists():
        for old in file.parent.glob(f"{file.stem.rpartition('-')[0]}-*"):
            old.unlink()
        with tempfile.TemporaryDirectory() as caches:
            weights = round_weights(model, calibration_data(Path(caches)), file)
        entries = [(*key, weight.offset, weight.shape, weight.scales.tolist()) for key, weight in weights.items()]
        index.write_text(json.dumps(entries), encoding="utf-8")
    return {
        (name, axis): StoredWeight(file, offset, tuple(shape), np.array(scales, np.float32))
        for name, axis, offset, shape, scales in json.loads(index.read_text(encoding="utf-8"))
    }


def judged(model: ir.Model | Path, count: int = 12, tokens: int = 256) -> dict[str, float]:
    """Perplexity over `count` windows of test tales, and the KL divergence to FP32 on the first 128 tokens of four."""
    texts = [TextWindow(ids) for ids in windows("test", count, tokens)]
    short = [TextWindow(text.ids[:128]) for text in texts[:_KL_WINDOWS]]
    layout = decoder_layout(plain())
    with _running(model) as run:
        with _running(plain().path) as reference:
            divergence = next_token_agreement(reference, run, layout, short)[-1].kl_divergence
        return {"perplexity": perplexity(run, layout, texts), "kl_divergence": divergence}


@contextmanager
def _running(model: ir.Model | Path) -> Iterator[Run]:
    with ExitStack() as stack:
        path = model if isinstance(model, Path) else stack.enter_context(temporary_model_file(model, "candidate.onnx"))
        runner = stack.enter_context(onnx_runner(path))
        yield lambda feeds: runner.infer(feeds, path.name)
