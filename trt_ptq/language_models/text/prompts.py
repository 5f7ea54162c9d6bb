"""Reads texts: files of text, JSON Lines, parquet, Hugging Face datasets, lists."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.errors import DataError

_TEXT_COLUMNS = ("text", "prompt", "content", "messages")
_GROUP_COLUMNS = ("source", "language", "lang")
_FORMS = "give a .txt, .jsonl or .parquet file, a folder of .txt files, a Hugging Face dataset or a list of texts"


@dataclass(frozen=True)
class ChatMessage:
    """A message of a chat, and who says it: "system", "user", "assistant"."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A text or a chat, where it came from (for messages), and the group that sampling keeps: source, language."""

    text: str | tuple[ChatMessage, ...]
    origin: str
    group: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but white space."""
        return not (self.text.strip() if isinstance(self.text, str) else self.text)


def read_prompts(data: Any, text_column: str | None = None, group_columns: Sequence[str] = ()) -> list[Prompt]:
    """Read texts.

    Args:
        data: a .txt file (one text), a folder of such files, a .jsonl or .parquet file, a Hugging Face dataset, or a
            list of texts, of chats (lists of messages) or of dicts.
        text_column: the column that holds the text, or the messages of a chat; unless given, "text", "prompt",
            "content" or "messages".
        group_columns: columns whose values form groups that are all sampled; unless given, "source", "language" and
            "lang" where the data has them.

    Raises:
        DataError: no such file or column, a damaged line, or no text at all; names the line or row.
        MissingPackageError: parquet files need pyarrow.
    """
    if isinstance(data, (str, os.PathLike)):
        name, items = os.fspath(data), _read_path(Path(data))
    elif isinstance(getattr(data, "column_names", None), Mapping):
        raise DataError(f"the data is a set of datasets: choose one, e.g. data[{next(iter(data.column_names))!r}]")
    elif isinstance(data, Iterable):
        name = type(data).__name__
        items = ((f"{name}, row {index}", row) for index, row in enumerate(data))
    else:
        raise DataError(f"data of type {type(data).__name__} is no text: {_FORMS}")
    columns = _Columns(text_column, tuple(group_columns))
    prompts = [prompt for origin, row in items if not (prompt := columns.prompt(row, origin)).is_empty]
    if not prompts:
        raise DataError(f"{name}: has no texts")
    return prompts


@dataclass(frozen=True)
class _Columns:
    """The columns of a row that are used; names that are not given are found by what the row has."""

    text: str | None
    groups: tuple[str, ...]

    def prompt(self, row: Any, origin: str) -> Prompt:
        if isinstance(row, str):
            if self.text is not None:
                raise DataError(f"{origin}: is text without columns, so `text_column={self.text}` names nothing")
            return Prompt(row, origin)
        if isinstance(row, (list, tuple)) and row and all(isinstance(message, Mapping) for message in row):
            if self.text is not None:
                raise DataError(f"{origin}: is a chat without columns, so `text_column={self.text}` names nothing")
            return Prompt(_chat(row, origin), origin)
        if not isinstance(row, Mapping):
            raise DataError(f"{origin}: is {type(row).__name__}, not a text, a chat or a row with columns")
        name = self.text or next((name for name in _TEXT_COLUMNS if name in row), None)
        if name is None or name not in row:
            missing = "no column text, prompt, content or messages" if name is None else f"no column {name!r}"
            raise DataError(f"{origin}: has {missing}; it has {', '.join(map(str, row))}: name one by `text_column`")
        text = row[name] if isinstance(row[name], str) else _chat(row[name], f"{origin}: column {name!r}")
        groups = self.groups or [group for group in _GROUP_COLUMNS if group in row]
        missing_groups = [group for group in groups if group not in row]
        if missing_groups:
            raise DataError(f"{origin}: has no column {missing_groups[0]!r} of `group_columns`")
        return Prompt(text, origin, tuple(str(row[group]) for group in groups))


def _chat(messages: Any, where: str) -> tuple[ChatMessage, ...]:
    """The messages of a chat: a list of dicts with "role" and "content"."""
    if not isinstance(messages, (list, tuple)) or not all(isinstance(message, Mapping) for message in messages):
        raise DataError(f"{where} holds {type(messages).__name__}, not text or the messages of a chat")
    chat = []
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{where}, message {index}: needs texts `role` and `content`; it has {', '.join(message)}")
        chat.append(ChatMessage(role, content))
    return tuple(chat)


def _read_path(path: Path) -> Iterator[tuple[str, Any]]:
    if path.is_dir():
        files = sorted(path.glob("*.txt"))
        if not files:
            raise DataError(f"{path}: has no .txt files: {_FORMS}")
        return ((str(file), _read_text(file)) for file in files)
    if not path.is_file():
        raise DataError(f"{path}: no such data file or folder")
    readers = {".txt": _read_text_file, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: unknown form of text: {_FORMS}")
    return readers[path.suffix](path)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as UTF-8 text: {error}") from error


def _read_text_file(path: Path) -> Iterator[tuple[str, Any]]:
    yield str(path), _read_text(path)


def _read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):  # other line breaks may stand in strings
        if not line.strip():
            continue
        origin = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{origin}: not JSON: {error}") from error
        yield origin, row


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    parquet = require("pyarrow.parquet", extra="llm")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise DataError(f"{path}: not a readable parquet file: {' '.join(str(error).split())}") from error
    for index, row in enumerate(rows):
        yield f"{path} row {index}", row
