"""From a torch module to an ONNX file, with a dynamic batch axis where that works."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq._internal.packages.torch_messages import first_cause, without_export_notes
from trt_ptq.errors import MissingPackageError, ModelError

_logger = logging.getLogger(__name__)


def export_module(module: Any, example_inputs: Any, path: Path, dynamic_shapes: Any = None) -> None:
    """Export `module` (torch.nn.Module) to `path` by torch.onnx.export(dynamo=True), in evaluation mode.

    Unless `dynamic_shapes` says otherwise, the first axis of all tensors is exported as dynamic. Where the module does
    not allow that, all sizes are those of the examples.

    Args:
        module: the module; the training mode of each of its submodules is restored afterwards.
        example_inputs: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        path: the ONNX file to write.
        dynamic_shapes: the axes that may vary; see `torch.onnx.export`.

    Raises:
        MissingPackageError: onnxscript, which PyTorch exports with, is not installed.
        ModelError: PyTorch cannot export the module.
    """
    torch = require("torch", extra="torch")
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        keywords = dict(example_inputs)
    else:
        arguments = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    training = [(submodule, submodule.training) for submodule in module.modules()]  # a frozen one is in eval()
    module.eval()
    try:
        try:
            shapes = dynamic_shapes or _dynamic_batch(torch, arguments, keywords)
            _export(torch, module, arguments, keywords, path, shapes)
            if dynamic_shapes is not None:
                _check_dynamic(dynamic_shapes, path)
        except MissingPackageError:
            raise
        except Exception as dynamic_error:  # torch.export raises many kinds
            if dynamic_shapes is not None:
                raise
            _logger.info("the batch size is fixed to that of `example_inputs`: %s", first_cause(dynamic_error))
            _export(torch, module, arguments, keywords, path, None)
    except MissingPackageError:
        raise
    except Exception as error:
        shapes = " and `dynamic_shapes`" if dynamic_shapes is not None else ""
        raise ModelError(
            f"PyTorch cannot export {type(module).__name__} with these `example_inputs`{shapes} "
            f"({type(error).__name__}: {first_cause(error)}): export it with torch.onnx.export and give the ONNX file"
        ) from error
    finally:
        for submodule, mode in training:
            submodule.training = mode


def _dynamic_batch(torch: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The `dynamic_shapes` that make the first axis of all tensors dynamic."""
    batch = torch.export.Dim("batch", min=1)

    def axes(value: Any) -> Any:
        return {0: batch} if isinstance(value, torch.Tensor) and value.ndim else None

    return {name: axes(value) for name, value in keywords.items()} if keywords else tuple(map(axes, arguments))


def _check_dynamic(dynamic_shapes: Any, path: Path) -> None:
    """Make sure that as many axes are dynamic as were named; PyTorch may fix one without a word.

    Raises:
        ValueError: fewer are.
    """
    inputs = onnx.load(path, load_external_data=False).graph.input
    axes = sum(dim.HasField("dim_param") for value in inputs for dim in value.type.tensor_type.shape.dim)
    if axes < (named := _num_named(dynamic_shapes)):
        raise ValueError(f"{named - axes} of the {named} axes that were named as dynamic are fixed by the module")


def _num_named(dynamic_shapes: Any) -> int:
    """How many axes have a name, or a `torch.export.Dim`, rather than a hint such as AUTO."""
    if isinstance(dynamic_shapes, (Mapping, tuple, list)):
        parts = dynamic_shapes.values() if isinstance(dynamic_shapes, Mapping) else dynamic_shapes
        return sum(map(_num_named, parts))
    return int(isinstance(dynamic_shapes, str) or hasattr(dynamic_shapes, "__name__"))


def _export(
    torch: Any, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], path: Path, shapes: Any
) -> None:
    with without_export_notes(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module, arguments, kwargs=keywords, dynamo=True, dynamic_shapes=shapes, verbose=False
            )
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"PyTorch needs {error.name} for the export: pip install {error.name}") from error
        program.save(str(path))
