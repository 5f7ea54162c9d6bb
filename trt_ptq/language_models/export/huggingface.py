"""From a Hugging Face causal language model to one ONNX file for prefill and decode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq._internal.packages.torch_messages import first_cause, without_export_notes
from trt_ptq.errors import MissingPackageError, ModelError
from trt_ptq.language_models.decoder import ATTENTION_MASK, INPUT_IDS, LOGITS, POSITION_IDS
from trt_ptq.language_models.export.decoder_module import decoder_module
from trt_ptq.language_models.export.module_names import name_after_modules
from trt_ptq.language_models.export.same_logits import check_same_logits

OPSET = 18
_SAMPLES, _SEQUENCE, _PAST = 2, 3, 5  # of the example that is traced: torch treats sizes of 0 and 1 as fixed
_LEAST_SIZES = {"batch": 1, "sequence": 1, "past": 0}


def is_huggingface_folder(path: Path) -> bool:
    """Whether `path` is the folder of a Hugging Face model."""
    return path.is_dir() and (path / "config.json").is_file()


def load_causal_lm(folder: Path) -> Any:
    """Load the causal language model of a Hugging Face folder in float32. Nothing is downloaded, no code in it runs.

    Raises:
        MissingPackageError: torch or transformers is not installed.
        ModelError: the folder holds no causal language model that transformers can read.
    """
    torch = require("torch", extra="llm")
    transformers = require("transformers", extra="llm")
    try:
        with _without_progress_bar(transformers):
            return transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
            )
    except Exception as error:  # transformers raises many kinds
        raise ModelError(
            f"{folder}: transformers cannot load a causal language model from this folder "
            f"({type(error).__name__}: {first_cause(error)})"
        ) from error


def is_causal_lm(model: object) -> bool:
    """Whether `model` is a Hugging Face model that generates text; transformers is not imported for that."""
    generates = getattr(model, "can_generate", None)
    return hasattr(model, "config") and callable(generates) and bool(generates())


def export_causal_lm(model: Any, path: Path, name: str) -> None:
    """Export `model` to `path`, with weights over 2 GB in a file beside it, and compare both in prefill and decode.

    Inputs and outputs have Optimum's layout; see `DecoderLayout`. The numbers of samples, of new tokens and of tokens
    in the cache are dynamic. Nodes, outputs of linear layers and weights are named after their modules, such as
    "model.layers.0.mlp.down_proj".

    Args:
        model: the causal language model in float32; it is left as it was.
        path: the ONNX file to write.
        name: what messages call the model.

    Raises:
        MissingPackageError: onnxscript, which PyTorch exports with, is not installed.
        ModelError: a layer has no key-value cache, PyTorch cannot export the model, or the ONNX file computes
            something else.
    """
    torch = require("torch", extra="llm")
    _check_float32(torch, model, name)
    with _for_inference(model), torch.no_grad(), without_export_notes():
        module, cache_shapes = decoder_module(torch, model, name)
        example = _example(torch, cache_shapes)
        try:
            program = torch.onnx.export(
                module,
                kwargs=example,
                dynamic_shapes=_dynamic_shapes(torch, len(cache_shapes)),
                input_names=[INPUT_IDS, ATTENTION_MASK, POSITION_IDS, *_cache_names("past_key_values", cache_shapes)],
                output_names=[LOGITS, *_cache_names("present", cache_shapes)],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f'PyTorch needs {error.name} for the export: pip install "trt-ptq[llm]"'
            ) from error
        except Exception as error:  # torch.export raises many kinds
            raise ModelError(
                f"{name}: PyTorch cannot export a layer of {type(model).__name__} ({type(error).__name__}: "
                f"{first_cause(error)}): export it by `optimum-cli export onnx --task text-generation-with-past`, and "
                "give the ONNX file with `tokenizer`"
            ) from error
        name_after_modules(program.model)
        _name_mask_length(program.model)
        program.save(str(path))
        del program
        check_same_logits(torch, module, cache_shapes, path, name)


def _example(torch: Any, cache_shapes: list[tuple[int, int]]) -> dict[str, Any]:
    return {
        INPUT_IDS: torch.ones((_SAMPLES, _SEQUENCE), dtype=torch.int64),
        ATTENTION_MASK: torch.ones((_SAMPLES, _PAST + _SEQUENCE), dtype=torch.int64),
        POSITION_IDS: torch.arange(_PAST, _PAST + _SEQUENCE).repeat(_SAMPLES, 1),
        "past": [
            tuple(torch.zeros((_SAMPLES, heads, _PAST, size)) for _ in ("key", "value")) for heads, size in cache_shapes
        ],
    }


def _dynamic_shapes(torch: Any, num_layers: int) -> dict[str, Any]:
    batch, sequence, past = (torch.export.Dim(name, min=least) for name, least in _LEAST_SIZES.items())
    cache = {0: batch, 2: past}
    return {
        INPUT_IDS: {0: batch, 1: sequence},
        ATTENTION_MASK: {0: batch, 1: torch.export.Dim.DYNAMIC},  # past + sequence
        POSITION_IDS: {0: batch, 1: sequence},
        "past": [(cache, cache)] * num_layers,
    }


def _name_mask_length(model: ir.Model) -> None:
    """Name the length of the mask like that of the cache outputs, with which it agrees; torch calls it s53 or so."""
    mask = next(value for value in model.graph.inputs if value.name == ATTENTION_MASK)
    mask.shape = ir.Shape(["batch", "past + sequence"])


def _cache_names(prefix: str, cache_shapes: list[tuple[int, int]]) -> list[str]:
    return [f"{prefix}.{layer}.{part}" for layer in range(len(cache_shapes)) for part in ("key", "value")]


def _check_float32(torch: Any, model: Any, name: str) -> None:
    other = next((weight for weight in model.parameters() if weight.dtype != torch.float32), None)
    if other is not None:
        raise ModelError(f"{name}: has weights in {str(other.dtype).removeprefix('torch.')}: give model.float()")


@contextmanager
def _without_progress_bar(transformers: Any) -> Iterator[None]:
    messages = transformers.utils.logging
    shown = messages.is_progress_bar_enabled()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            messages.enable_progress_bar()


@contextmanager
def _for_inference(model: Any) -> Iterator[None]:
    """`model` in evaluation mode, with attention as plain MatMul and Softmax; as it was before afterwards."""
    training = [(submodule, submodule.training) for submodule in model.modules()]
    attention = model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        for submodule, mode in training:
            submodule.training = mode
