"""From a torch module to an ONNX file, with a dynamic batch axis where that works."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trt_ptq._internal.optional_packages import require
from trt_ptq._internal.torch_messages import first_cause, without_export_notes
from trt_ptq.errors import MissingPackageError, ModelError

_logger = logging.getLogger(__name__)


def export_module(module: Any, example_inputs: Any, path: Path) -> None:
    """Export `module` (torch.nn.Module) to `path` by torch.onnx.export(dynamo=True), in evaluation mode.

    The first axis of all tensors is exported as dynamic. Where the module does not allow that, all sizes are those of
    the examples.

    Args:
        module: the module; the training mode of each of its submodules is restored afterwards.
        example_inputs: a tuple of positional inputs, a dict of keyword inputs, or one tensor.
        path: the ONNX file to write.

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
            _export(torch, module, arguments, keywords, path, dynamic=True)
        except MissingPackageError:
            raise
        except Exception as dynamic_error:  # torch.export raises many kinds
            _logger.info("the batch size is fixed to that of `example_inputs`: %s", first_cause(dynamic_error))
            _export(torch, module, arguments, keywords, path, dynamic=False)
    except MissingPackageError:
        raise
    except Exception as error:
        raise ModelError(
            f"PyTorch cannot export {type(module).__name__} with these `example_inputs` "
            f"({type(error).__name__}: {first_cause(error)}): export it with torch.onnx.export and give the ONNX file"
        ) from error
    finally:
        for submodule, mode in training:
            submodule.training = mode


def _export(
    torch: Any, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], path: Path, *, dynamic: bool
) -> None:
    shapes: Any = None
    if dynamic:
        batch = torch.export.Dim("batch", min=1)

        def axes(value: Any) -> Any:
            return {0: batch} if isinstance(value, torch.Tensor) and value.ndim else None

        shapes = (
            tuple(map(axes, arguments)) if not keywords else {name: axes(value) for name, value in keywords.items()}
        )
    with without_export_notes(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module, arguments, kwargs=keywords, dynamo=True, dynamic_shapes=shapes, verbose=False
            )
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"PyTorch needs {error.name} for the export: pip install {error.name}") from error
        program.save(str(path))
