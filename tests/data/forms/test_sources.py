"""Files and folders of arrays become batches; errors name the file in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polygraphy.json import save_json

from tests.data.opened import X, Y, one_line, rows, shapes
from trt_ptq.data.open import open_data
from trt_ptq.errors import DataError


class TestFolderOfNpz:
    def test_each_file_is_a_batch_in_order_of_names(self, tmp_path: Path) -> None:
        for name, count in (("b", 2), ("a", 3), ("c", 1)):
            np.savez(tmp_path / f"{name}.npz", x=rows(count), y=np.arange(count))
        source = open_data(str(tmp_path), (X, Y))
        assert shapes(source) == [{"x": (count, 4), "y": (count,)} for count in (3, 2, 1)]
        assert source.total == 3
        assert [batch.origin for batch in source] == [str(tmp_path / f"{name}.npz") for name in "abc"]

    def test_can_be_read_again(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=rows(2))
        source = open_data(str(tmp_path), (X,))
        assert shapes(source) == shapes(source)

    def test_class_subfolders_take_turns(self, tmp_path: Path) -> None:
        for name in ("a/1", "a/2", "b/1"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            np.savez(tmp_path / name, x=rows(2))
        names = [f"{tmp_path / name}.npz" for name in ("a/1", "b/1", "a/2")]
        assert [batch.origin for batch in open_data(tmp_path, (X,))] == names

    def test_subfolders_are_not_read_beside_files(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        np.savez(tmp_path / "other" / "2.npz", x=rows(3))
        np.savez(tmp_path / "1.npz", x=rows(2))
        assert shapes(open_data(tmp_path, (X,))) == [{"x": (2, 4)}]

    def test_an_interrupted_write_is_ignored(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=rows(2))
        (tmp_path / ".trt-ptq-00000000.tmp").write_bytes(b"half")
        assert len(shapes(open_data(str(tmp_path), (X,)))) == 1

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no \.npz files and no images"):
            open_data(str(tmp_path), (X,))

    def test_two_kinds_in_one_folder_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=rows(2))
        (tmp_path / "b.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"both \.npz files and images"):
            open_data(str(tmp_path), (X,))

    def test_only_the_damaged_file_is_named(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=rows(2))
        (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
        with pytest.raises(DataError, match=r"b\.npz: not a readable NumPy file") as caught:
            list(open_data(str(tmp_path), (X,)))
        one_line(caught.value)


class TestArrayFile:
    @pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (8, [5])])
    def test_one_npz_is_cut_along_the_first_axis(self, tmp_path: Path, batch_size: int, sizes: list[int]) -> None:
        np.savez(tmp_path / "d.npz", x=rows(5), y=np.arange(5))
        source = open_data(str(tmp_path / "d.npz"), (X, Y), batch_size=batch_size)
        assert shapes(source) == [{"x": (size, 4), "y": (size,)} for size in sizes]
        assert source.total == len(sizes)
        assert np.array_equal(np.concatenate([batch.feeds["x"] for batch in source]), rows(5))

    def test_one_npy_feeds_the_only_input(self, tmp_path: Path) -> None:
        np.save(tmp_path / "d.npy", rows(5))
        batches = list(open_data(str(tmp_path / "d.npy"), (X,), batch_size=4))
        assert shapes(batches) == [{"x": (4, 4)}, {"x": (1, 4)}]  # type: ignore[arg-type]
        assert batches[1].origin == f"{tmp_path / 'd.npy'}, samples 4 to 4"

    def test_one_npy_for_two_inputs_is_refused_with_their_names(self, tmp_path: Path) -> None:
        np.save(tmp_path / "d.npy", rows(5))
        with pytest.raises(DataError, match=r"the model has 2 \(x, y\)"):
            open_data(str(tmp_path / "d.npy"), (X, Y))

    def test_arrays_of_different_lengths_are_refused_with_their_shapes(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x=rows(5), y=np.arange(4))
        with pytest.raises(DataError, match=r"x \[5, 4\], y \[4\]"):
            open_data(str(tmp_path / "d.npz"), (X, Y))

    @pytest.mark.parametrize("arrays", [{}, {"x": np.float32(3)}, {"x": rows(0)}], ids=["none", "scalar", "no samples"])
    def test_a_file_without_samples_is_refused(self, tmp_path: Path, arrays: dict[str, Any]) -> None:
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(DataError, match=r"d\.npz: "):
            open_data(str(tmp_path / "d.npz"), (X,))

    @pytest.mark.parametrize("name", ["d.npz", "d.npy"])
    def test_pickled_objects_are_refused_and_not_loaded(self, tmp_path: Path, name: str) -> None:
        objects = np.array([{"a": 1}, None], dtype=object)
        (np.savez if name == "d.npz" else np.save)(tmp_path / name, objects)
        with pytest.raises(DataError, match=f"{name}: not a readable NumPy file") as caught:
            open_data(str(tmp_path / name), (X,))
        assert "allow_pickle" not in str(caught.value)

    def test_other_members_of_an_archive_are_refused_by_name(self, tmp_path: Path) -> None:
        import zipfile

        np.savez(tmp_path / "d.npz", x=rows(2))
        with zipfile.ZipFile(tmp_path / "d.npz", "a") as archive:
            archive.writestr("notes.txt", "hello")
        with pytest.raises(DataError, match=r"'notes\.txt' is not a NumPy array"):
            open_data(str(tmp_path / "d.npz"), (X,))

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_a_file_damaged_anywhere_is_read_or_refused_in_one_line(self, tmp_path: Path, save: Any) -> None:
        path = tmp_path / "d.npz"
        save(path, x=rows(8), y=np.arange(8))
        content = path.read_bytes()
        refused = 0
        for position in range(len(content)):
            for damaged in (
                content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :],
                content[:position],
            ):
                path.write_bytes(damaged)
                try:
                    open_data(str(path), (X, Y))
                except DataError as error:
                    assert str(path) in one_line(error)  # noqa: PT017 - not every damage matters to NumPy
                    refused += 1
        assert refused > len(content)


class TestPolygraphyJson:
    def test_what_polygraphy_saved_is_read(self, tmp_path: Path) -> None:
        save_json([{"x": rows(2), "y": np.arange(2)}, {"x": rows(3), "y": np.arange(3)}], str(tmp_path / "d.json"))
        source = open_data(str(tmp_path / "d.json"), (X, Y))
        assert shapes(source) == [{"x": (2, 4), "y": (2,)}, {"x": (3, 4), "y": (3,)}]
        assert source.total == 2
        assert np.array_equal(next(iter(source)).feeds["x"], rows(2))
        assert [batch.origin for batch in source][1] == f"{tmp_path / 'd.json'}, batch 1"

    @pytest.mark.parametrize(
        "content",
        ["", "{}", "[1]", "[" * 100_000, '[{"x": [[1], [1, 2]]}]', '[{"x": {"polygraphy_class": "ndarray"}}]'],
        ids=["empty", "a dict", "no dicts", "deep", "ragged", "no array"],
    )
    def test_other_json_is_refused_with_its_name(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "d.json").write_text(content)
        with pytest.raises(DataError, match=r"d\.json: not a Polygraphy JSON file") as caught:
            open_data(str(tmp_path / "d.json"), (X,))
        one_line(caught.value)
