"""The shards of a source are all of its batches, each once; files of other shards are not read where possible."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polygraphy.json import save_json

from tests.data.opened import Stream, X, origins
from trt_ptq.data.open import open_data
from trt_ptq.data.shard import EmptyShardError, ShardedSource, parse_shard
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError, UsageError
from trt_ptq.types import BatchSource, TensorSpec, is_indexed

SAMPLES = np.arange(44, dtype=np.float32).reshape(11, 4)


def in_turn(shards: list[list[str]]) -> list[str]:
    """The first of each, then the second of each, and so on."""
    longest = max(map(len, shards))
    return [shard[place] for place in range(longest) for shard in shards if place < len(shard)]


def folder(path: Path) -> str:
    for index in range(11):
        np.savez(path / f"{index:02}.npz", x=SAMPLES[index : index + 1])
    return str(path)


def array(path: Path) -> str:
    np.save(path / "d.npy", SAMPLES)
    return str(path / "d.npy")


def polygraphy(path: Path) -> str:
    save_json([{"x": SAMPLES[index : index + 1]} for index in range(11)], str(path / "d.json"))
    return str(path / "d.json")


def loader(path: Path) -> str:
    (path / "load.py").write_text(
        "import numpy as np\ndef batches():\n  for i in range(11):\n    yield {'x': np.full((1, 4), i, np.float32)}\n"
    )
    return f"{path / 'load.py'}:batches"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("make", [folder, array, polygraphy, loader], ids=lambda make: make.__name__)
def test_shards_of_every_form_of_data_are_all_of_it_in_turn(make: object, count: int, tmp_path: Path) -> None:
    source = open_data(make(tmp_path), (X,), batch_size=2)  # type: ignore[operator]
    shards = [ShardedSource(source, index, count) for index in range(count)]
    assert in_turn([origins(shard) for shard in shards]) == origins(source)
    if source.total is not None:
        assert [shard.total for shard in shards] == [len(origins(shard)) for shard in shards]


def test_shards_of_images_are_all_of_them_in_turn(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image", reason="needs pillow")
    (tmp_path / "images").mkdir()
    for index in range(7):
        images.new("RGB", (2, 2), (index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "prepare.py").write_text(
        "import numpy as np\ndef prepare(image):\n  return np.asarray(image, np.float32).transpose(2, 0, 1)\n"
    )
    spec = TensorSpec("image", np.dtype(np.float32), ("n", 3, 2, 2))
    source = open_data(str(tmp_path / "images"), (spec,), batch_size=2, preprocess=f"{tmp_path / 'prepare.py'}:prepare")
    assert in_turn([origins(ShardedSource(source, index, 3)) for index in range(3)]) == origins(source)


@given(st.integers(1, 60), st.integers(1, 12))
def test_for_any_numbers_each_batch_is_in_one_shard_and_shards_differ_by_one_at_most(whole: int, count: int) -> None:
    arrays = ArraySource("d.npy", {"x": np.zeros((whole, 1), np.float32)}, batch_size=1)
    sources: list[BatchSource] = [arrays, Stream(whole)]
    for source in sources:
        shards = [origins(ShardedSource(source, index, count)) for index in range(min(count, whole))]
        assert in_turn(shards) == origins(source)
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_the_files_of_other_shards_are_not_read(tmp_path: Path) -> None:
    source = open_data(folder(tmp_path), (X,))
    for index in range(0, 11, 2):
        (tmp_path / f"{index:02}.npz").unlink()
    assert len(origins(ShardedSource(source, 1, 2))) == 5
    with pytest.raises(DataError, match=r"00\.npz"):
        origins(ShardedSource(source, 0, 2))


def test_functions_are_not_indexed_and_files_are(tmp_path: Path) -> None:
    indexed = [is_indexed(open_data(make(tmp_path), (X,))) for make in (loader, array, polygraphy)]
    assert indexed == [False, True, True]


@pytest.mark.parametrize("source", [Stream(5), ArraySource("d", {"x": np.zeros((5, 1))}, 1)], ids=repr)
def test_a_shard_without_batches_is_refused_with_the_possible_number(source: BatchSource) -> None:
    message = r"shard 5/8 has no batches: the data has 5, so use 5 shards at most"
    with pytest.raises(EmptyShardError, match=message):
        list(ShardedSource(source, 5, 8))
    assert len(list(ShardedSource(source, 4, 8))) == 1


def test_a_shard_of_no_data_is_empty() -> None:
    assert list(ShardedSource(Stream(0), 0, 8)) == []


@pytest.mark.parametrize(("text", "shard"), [("0/1", (0, 1)), ("0/8", (0, 8)), ("7/8", (7, 8)), ("007/100", (7, 100))])
def test_a_shard_is_written_index_of_count(text: str, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "3", "/", "3/", "a/8", "-1/8", "1/-8", "1.5/8", "1 / 8", "0/0", "1/2/3", "٣/٨"])
def test_other_text_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a shard: write INDEX/COUNT, e\.g\. 0/8 for the first of eight"):
        parse_shard(text)


@pytest.mark.parametrize("text", ["8/8", "9/8", "1/1"])
def test_counting_from_one_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(UsageError, match=rf"no shard {text}: shards count from 0, .*SLURM: --array=0-\d\)"):
        parse_shard(text)


def test_a_shard_of_a_function_is_pickled_by_its_file(tmp_path: Path) -> None:
    shard = ShardedSource(open_data(loader(tmp_path), (X,)), 1, 3)
    loaded = pickle.loads(pickle.dumps(shard))  # what Ray does
    assert origins(loaded) == origins(shard) == [f"{tmp_path / 'load.py'}:batches, batch {i}" for i in (1, 4, 7, 10)]
