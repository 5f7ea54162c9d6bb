"""Texts are read from files, datasets and lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trt_ptq.errors import DataError
from trt_ptq.language_models.text.prompts import ChatMessage, read_prompts

ROWS = [
    {"text": "Once upon a time", "source": "tales", "language": "en"},
    {"text": "Es war einmal", "source": "tales", "language": "de"},
]


def json_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, rows: list[dict[str, str]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_a_text_file_is_one_text_and_a_folder_one_for_each_file(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    assert [prompt.text for prompt in read_prompts(tmp_path / "a.txt")] == ["text a"]
    assert [prompt.text for prompt in read_prompts(tmp_path)] == ["text a", "text b"]


def test_rows_have_a_text_and_a_group(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for data in (
        json_lines(tmp_path / "p.jsonl", ROWS),
        parquet(tmp_path / "p.parquet", ROWS),
        ROWS,
        datasets.Dataset.from_list(ROWS),
    ):
        prompts = read_prompts(data)
        assert [prompt.text for prompt in prompts] == [row["text"] for row in ROWS]
        assert [prompt.group for prompt in prompts] == [("tales", "en"), ("tales", "de")]


def test_columns_can_be_named() -> None:
    (prompt,) = read_prompts([{"question": "Why?", "text": "no", "topic": 3}], "question", ["topic"])
    assert (prompt.text, prompt.group) == ("Why?", ("3",))


def test_a_line_separator_within_a_string_is_no_line_break(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "p.jsonl", [{"text": "one\u2028two"}, {"text": "three"}])
    assert [prompt.origin for prompt in read_prompts(path)] == [f"{path} line 1", f"{path} line 2"]


def test_empty_texts_are_left_out() -> None:
    rows = ["", " \n", {"messages": []}, "text"]
    assert [prompt.text for prompt in read_prompts(rows)] == ["text"]


def test_rows_may_hold_chats(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}]
    chat = (ChatMessage("user", "Why?"), ChatMessage("assistant", "So."))
    for data in (rows, json_lines(tmp_path / "p.jsonl", rows), datasets.Dataset.from_list(rows)):
        assert [prompt.text for prompt in read_prompts(data)] == [chat]
    assert read_prompts([[{"role": "user", "content": "Why?"}]])[0].text == chat[:1]
    (named,) = read_prompts([{"text": "no", "talk": rows[0]["messages"]}], "talk")
    assert named.text == chat


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        ([{"question": "Why?"}], {}, "row 0: has no column text, prompt, content or messages; it has question"),
        ([{"text": "a"}], {"text_column": "body"}, "no column 'body'"),
        ([{"text": ["a"]}], {}, "column 'text' holds list, not text or the messages of a chat"),
        (
            [{"messages": [{"role": "user"}]}],
            {},
            "column 'messages', message 0: needs texts `role` and `content`; it has",
        ),
        ([{"text": "a"}], {"group_columns": ["topic"]}, "no column 'topic' of `group_columns`"),
        (["a"], {"text_column": "body"}, "without columns"),
        ([3], {}, "row 0: is int"),
        ([""], {}, "has no texts"),
        (3, {}, "data of type int is no text"),
    ],
)
def test_other_data_is_refused(data: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(data, **arguments)


def test_damaged_files_are_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"text": "a"}\n{"text": ')
    (tmp_path / "p.parquet").write_bytes(b"no parquet")
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("p.jsonl", "p.jsonl line 2: not JSON"),
        ("p.parquet", "not a readable parquet file"),
        ("p.txt", "not readable as UTF-8"),
        ("empty", "has no .txt files"),
        ("p.csv", "no such data file"),
    ):
        with pytest.raises(DataError, match=message):
            read_prompts(tmp_path / name)


def test_a_set_of_datasets_is_refused() -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match="choose one"):
        read_prompts(datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)))
