"""Text for a causal language model, as `quantize` and `calibrate` take it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trt_ptq.api.inputs.model_input import ModelLike, describe_model
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import DataError, UsageError
from trt_ptq.language_models.export.huggingface import is_causal_lm, is_huggingface_folder
from trt_ptq.language_models.language_data import LanguageData, TextOptions, open_text
from trt_ptq.language_models.text.samples import check_max_length
from trt_ptq.language_models.text.tokenizer import TextTokenizer, config_window, has_tokenizer, load_tokenizer
from trt_ptq.onnx_io.load import Model

_TEXT_FIELDS = ("text_column", "group_columns", "max_length", "samples")


def open_language_data(
    given: ModelLike,
    model: Model,
    data: Any,
    test_data: Any,
    tokenizer: Any,
    config: QuantizeConfig,
    folder: Path,
    preprocess: Any = None,
) -> LanguageData | None:
    """Open the text that a language model is calibrated with; None if the task is another one.

    Args:
        given: the model, as the user gave it.
        model: the same, loaded.
        data: text to calibrate with.
        test_data: text to evaluate on, or None.
        tokenizer: the tokenizer or its folder; None for the folder of the model.
        config: the task, and how to read and draw text.
        folder: a temporary folder.
        preprocess: refused, as it is for images.

    Raises:
        UsageError: no tokenizer, or `preprocess`.
        DataError, ModelError: see `open_text`.
    """
    if not _is_text_task(tokenizer, config):
        return None
    if preprocess is not None:
        raise UsageError("`preprocess` is for images, not for text")
    options = TextOptions(
        config.text_column, tuple(config.group_columns), config.max_length, config.samples, config.batch_size
    )
    return open_text(model, describe_model(given), data, test_data, model_tokenizer(given, tokenizer), options, folder)


def check_text_task(
    given: ModelLike, tokenizer: Any, config: QuantizeConfig, example_inputs: Any = None, texts: Sequence[Any] = ()
) -> None:
    """Make sure that the task is given where it is needed, and that the files are there: before a model is exported.

    Args:
        given: the model, as the user gave it.
        tokenizer: the tokenizer, if it was given.
        config: the task, and the options for text.
        example_inputs: what a torch module is exported with; then it is no language model for us.
        texts: the data and the test data.

    Raises:
        DataError: no such file.
        UsageError: an option for text, or a language model that must be exported, without the task; no tokenizer; or
            `max_length` exceeds the model's window.
    """
    if _is_text_task(tokenizer, config):
        check_max_length(config.max_length, model_tokenizer(given, tokenizer).window)
        for text in texts:
            if isinstance(text, (str, os.PathLike)) and not Path(text).exists():
                raise DataError(f"{os.fspath(text)}: no such data file or folder")
        return
    used = [name for name in _TEXT_FIELDS if getattr(config, name)]
    if used:
        raise UsageError(f"`{used[0]}` is for text: add `task=text-generation`")
    is_folder = isinstance(given, (str, os.PathLike)) and is_huggingface_folder(Path(given))
    if is_folder:
        raise UsageError(f"{describe_model(given)}: is a language model: add `task=text-generation`")
    if is_causal_lm(given) and example_inputs is None:
        raise UsageError(f"{describe_model(given)}: is a language model: give its `tokenizer`, and text as data")


def _is_text_task(tokenizer: Any, config: QuantizeConfig) -> bool:
    return config.task is not None or tokenizer is not None


def model_tokenizer(given: ModelLike, tokenizer: Any = None) -> TextTokenizer:
    """The tokenizer of the model `given`: `tokenizer`, or that in the folder of the model.

    Raises:
        UsageError: there is none, or it cannot be loaded.
    """
    window = config_window(getattr(given, "config")) if is_causal_lm(given) else None  # noqa: B009 - for mypy
    if tokenizer is not None:
        return load_tokenizer(tokenizer, window)
    if isinstance(given, (str, os.PathLike, Model)):
        path = given.path if isinstance(given, Model) else Path(given)
        folder = path if path.is_dir() else path.parent
        if path.is_dir() or has_tokenizer(folder):
            return load_tokenizer(folder, window)
    raise UsageError(
        f"`tokenizer` is missing: give the Hugging Face tokenizer of {describe_model(given)}, or the folder that has it"
    )
