"""The tokenizer of a language model."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq._internal.packages.torch_messages import first_cause
from trt_ptq.errors import DataError, UsageError
from trt_ptq.language_models.text.prompts import Prompt
from trt_ptq.types import Array

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_WINDOW_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len")
_UNLIMITED = 10**9  # transformers writes a huge number where a tokenizer has no limit


@dataclass(frozen=True)
class TextTokenizer:
    """A Hugging Face tokenizer; `name` is what messages call it.

    `window` is the number of tokens that the model can read at once; None if it is not known.
    """

    name: str
    tokenizer: Any
    window: int | None

    def encode(self, text: str) -> Array:
        """The tokens of `text`, with those that the tokenizer adds (such as begin-of-text), int64 [length]."""
        return np.asarray(self.tokenizer(text, verbose=False)["input_ids"], np.int64)

    def encode_prompt(self, prompt: Prompt) -> Array:
        """The tokens of a text, or of a chat in the form of the tokenizer's chat template, int64 [length].

        Raises:
            DataError: the tokenizer has no chat template, or the template refuses the chat.
        """
        if isinstance(prompt.text, str):
            return self.encode(prompt.text)
        if not getattr(self.tokenizer, "chat_template", None):
            raise DataError(
                f"{prompt.origin}: is a chat, and {self.name} has no chat template: use the tokenizer of a chat model, "
                "or name a column of text by `text_column`"
            )
        try:
            text = self.tokenizer.apply_chat_template([asdict(message) for message in prompt.text], tokenize=False)
        except Exception as error:  # templates raise errors of Jinja, and of their own
            raise DataError(
                f"{prompt.origin}: the chat template of {self.name} refuses it: {first_cause(error)}"
            ) from error
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.asarray(ids, np.int64)  # the template has written the special tokens

    def decode(self, ids: Array) -> str:
        """The text of tokens."""
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=True))

    @property
    def begin_id(self) -> int | None:
        """The token that the tokenizer puts before every text; None if it puts none."""
        begin = self.tokenizer.bos_token_id
        encoded = self.encode("a")
        return int(begin) if begin is not None and encoded.size and encoded[0] == begin else None

    @property
    def end_id(self) -> int | None:
        """The token that ends a generated text; None without one."""
        end = self.tokenizer.eos_token_id
        return None if end is None else int(end)

    def check_fits(self, vocabulary: int | None, model: str) -> None:
        """Make sure that every token of the tokenizer is one of the model's.

        Raises:
            DataError: the tokenizer has more tokens than the model scores.
        """
        largest = max(self.tokenizer.get_vocab().values(), default=0)
        if vocabulary is not None and largest >= vocabulary:
            raise DataError(
                f"{self.name}: this tokenizer has tokens up to {largest}, and {model} has {vocabulary} tokens: it "
                "belongs to another model: give the folder of the right one as `tokenizer`"
            )


def load_tokenizer(tokenizer: Any, model_window: int | None = None) -> TextTokenizer:
    """Load a tokenizer. Nothing is downloaded, no code beside it runs.

    Args:
        tokenizer: a folder with the files of a Hugging Face tokenizer, or the tokenizer itself.
        model_window: how many tokens the model can read at once; unless given, by config.json in the folder, or by the
            tokenizer.

    Raises:
        MissingPackageError: transformers is not installed.
        UsageError: no tokenizer, or a folder that has none.
    """
    if isinstance(tokenizer, (str, os.PathLike)):
        folder = Path(tokenizer)
        if not has_tokenizer(folder):
            raise UsageError(f"{folder}: has no tokenizer (tokenizer.json): give its folder as `tokenizer`")
        transformers = require("transformers", extra="llm")
        try:
            loaded = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers raises many kinds
            raise UsageError(
                f"{folder}: transformers cannot load the tokenizer ({type(error).__name__}: {first_cause(error)})"
            ) from error
        return TextTokenizer(str(folder), loaded, model_window or _window_of_folder(folder) or _own_limit(loaded))
    if not callable(tokenizer) or not hasattr(tokenizer, "get_vocab"):
        raise UsageError(f"`tokenizer` must be a folder or a Hugging Face tokenizer, not {type(tokenizer).__name__}")
    return TextTokenizer(type(tokenizer).__name__, tokenizer, model_window or _own_limit(tokenizer))


def has_tokenizer(folder: Path) -> bool:
    """Whether `folder` has the files of a Hugging Face tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def config_window(config: Any) -> int | None:
    """How many tokens a model can read at once, by its Hugging Face configuration, an object or a dict."""
    fields = config if isinstance(config, dict) else vars(config)
    for name in _WINDOW_FIELDS:
        if isinstance(fields.get(name), int):
            return int(fields[name])
    nested = fields.get("text_config")
    return None if nested is None else config_window(nested)


def _window_of_folder(folder: Path) -> int | None:
    try:
        return config_window(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _own_limit(tokenizer: Any) -> int | None:
    limit = getattr(tokenizer, "model_max_length", _UNLIMITED)
    return int(limit) if isinstance(limit, int) and limit < _UNLIMITED else None
