"""A model in any form, as a file that was read and checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import onnx

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.errors import ModelError, TrtPtqError, UsageError
from trt_ptq.language_models.export.huggingface import (
    export_causal_lm,
    is_causal_lm,
    is_huggingface_folder,
    load_causal_lm,
)
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.output import FLOAT_MODEL

if TYPE_CHECKING:
    import torch

ModelLike = Union[str, "os.PathLike[str]", onnx.ModelProto, Model, "torch.nn.Module"]
_LARGEST_IN_ONE_FILE = 1_900_000_000  # bytes; protobuf ends at 2 GiB


@contextmanager
def opened_model(
    model: ModelLike, example_inputs: Any = None, dynamic_shapes: Any = None, *, allow_quantized: bool = False
) -> Iterator[Model]:
    """`model`, read and checked; what had to be written for that is there within the block only.

    Raises:
        ModelError: see `load_model`; or PyTorch cannot export it.
        UsageError: a torch module without example inputs, or something else than a model.
    """
    with model_file(model, example_inputs, dynamic_shapes) as path:
        yield model if isinstance(model, Model) else load_model(path, allow_quantized=allow_quantized)


@contextmanager
def model_file(model: ModelLike, example_inputs: Any = None, dynamic_shapes: Any = None) -> Iterator[Path]:
    """The ONNX file of `model`: its own, or a temporary one within the block only.

    Raises:
        MissingPackageError: a Hugging Face folder needs torch and transformers.
        ModelError: PyTorch cannot export the module, or a folder is none of Hugging Face.
        UsageError: a torch module without example inputs, or something else than a model.
    """
    module = is_torch_module(model)
    for name, value in (("example_inputs", example_inputs), ("dynamic_shapes", dynamic_shapes)):
        if value is not None and not module:
            raise UsageError(f"`{name}` is for a torch.nn.Module, not for {describe_model(model)}")
    if isinstance(model, Model):
        yield model.path
    elif isinstance(model, (str, os.PathLike)) and not Path(model).is_dir():
        yield Path(model)
    elif isinstance(model, (str, os.PathLike)) or module or isinstance(model, onnx.ModelProto):
        with temporary_folder() as folder:
            path = write_model(model, folder / FLOAT_MODEL, example_inputs, dynamic_shapes)
            try:
                yield path
            except TrtPtqError as error:
                if str(path) not in str(error):
                    raise
                raise type(error)(str(error).replace(str(path), describe_model(model))) from error
    else:
        raise UsageError(f"`model` must be a path, an onnx.ModelProto or a torch.nn.Module, not {type(model).__name__}")


def write_model(model: ModelLike, path: Path, example_inputs: Any = None, dynamic_shapes: Any = None) -> Path:
    """Write a model that is no ONNX file to `path`.

    Args:
        model: an `onnx.ModelProto`, a torch module, a Hugging Face causal language model, or the folder of one.
        path: the ONNX file.
        example_inputs: what other torch modules are exported with.
        dynamic_shapes: their dynamic axes; see `export_module`.

    Raises:
        MissingPackageError: a Hugging Face folder needs torch and transformers.
        ModelError: PyTorch cannot export the module, or a folder is none of Hugging Face.
        UsageError: a torch module without example inputs, or a proto whose weights lie in files.
    """
    if isinstance(model, onnx.ModelProto):
        _write_proto(model, path)
    elif isinstance(model, (str, os.PathLike)):
        folder = Path(model)
        if not is_huggingface_folder(folder):
            raise ModelError(f"{folder}: a folder without config.json: give an ONNX file, or a Hugging Face folder")
        export_causal_lm(load_causal_lm(folder), path, str(folder))
    elif example_inputs is None and is_causal_lm(model):
        export_causal_lm(model, path, describe_model(model))
    elif example_inputs is None:
        raise UsageError(
            f"`example_inputs` is missing: {describe_model(model)} is exported to ONNX with them: give a tuple of "
            "positional inputs, a dict of keyword inputs, or one tensor"
        )
    else:
        from trt_ptq.api.inputs.torch_export import export_module

        export_module(model, example_inputs, path, dynamic_shapes)
    return path


def describe_model(model: ModelLike) -> str:
    """What reports and messages call the model."""
    if isinstance(model, Model):
        return str(model.path)
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    if isinstance(model, onnx.ModelProto):
        return f"onnx.ModelProto {model.graph.name!r}" if model.graph.name else "onnx.ModelProto"
    return f"{'torch module ' * is_torch_module(model)}{type(model).__name__}"


def is_in_memory(model: ModelLike) -> bool:
    """Whether `model` is an `onnx.ModelProto`, a torch module or a Hugging Face folder, which have no ONNX file."""
    if isinstance(model, (str, os.PathLike)):
        return Path(model).is_dir()
    return not isinstance(model, Model)


def is_torch_module(model: object) -> bool:
    """Whether `model` is a torch.nn.Module; torch is not imported for that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _write_proto(model: onnx.ModelProto, path: Path) -> None:
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise UsageError(
            f"the weights of {describe_model(model)} lie in files ({outside[0]!r}, for one), and it does not say in "
            "which folder: give the path of the model, or load them (onnx.load_external_data_for_model)"
        )
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST_IN_ONE_FILE
    if large:
        copy = onnx.ModelProto()  # onnx.save would move the weights of the caller's model to the file
        copy.CopyFrom(model)
        onnx.save(copy, path, save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, path)
