"""What `open_data` refuses before it reads any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.opened import X, rows, shapes
from trt_ptq.data.open import open_data
from trt_ptq.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.npz", "no such data file or folder"),
        ("d.csv", "unknown form of data"),
        ("d.jsonl", "text is only for language models, .* with `task=text-generation`"),
        ("absent", "no such data"),
    ],
)
def test_a_missing_or_unknown_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    for file in ("d.csv", "d.jsonl"):
        (tmp_path / file).write_text("")
    with pytest.raises(DataError, match=message):
        open_data(str(tmp_path / name), (X,))


def test_a_path_object_names_data_as_a_string_does(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", rows(2))
    assert shapes(open_data(tmp_path / "d.npy", (X,))) == shapes(open_data(str(tmp_path / "d.npy"), (X,)))


def test_a_batch_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`batch_size` must be 1 or more, not 0"):
        open_data(tmp_path, (X,), batch_size=0)


@pytest.mark.parametrize("data", [rows(2), "load.py:batches"], ids=["array", "function"])
def test_preprocess_is_only_for_images(data: Any) -> None:
    with pytest.raises(UsageError, match="`preprocess` is for a folder of images"):
        open_data(data, (X,), preprocess=lambda image: image)


@pytest.mark.parametrize("data", [None, 3, object()], ids=["None", "int", "object"])
def test_other_types_are_refused_with_the_supported_ones(data: Any) -> None:
    with pytest.raises(UsageError, match=f"data of type {type(data).__name__} is not supported: give a folder, a file"):
        open_data(data, (X,))
