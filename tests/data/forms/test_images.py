"""A folder of images becomes batches; errors name the image."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.data.opened import IMAGE, Y, origins, shapes
from trt_ptq.data.open import open_data
from trt_ptq.errors import DataError, MissingPackageError, UsageError
from trt_ptq.types import BatchSource


def prepare(image: Any) -> npt.NDArray[np.float32]:
    return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)


def save(path: Path, colour: str = "red", size: tuple[int, int] = (2, 2)) -> None:
    images = pytest.importorskip("PIL.Image", reason="needs pillow")
    path.parent.mkdir(parents=True, exist_ok=True)
    images.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images: red, green and blue."""
    for name, colour in (("1.png", "red"), ("2.BMP", "lime"), ("3.jpg", "blue")):
        save(tmp_path / "images" / name, colour)
    return tmp_path / "images"


def open_images(folder: Path, preprocess: Any = prepare) -> BatchSource:
    return open_data(folder, (IMAGE,), batch_size=2, preprocess=preprocess)


def test_each_image_is_a_sample_in_the_order_of_names(folder: Path) -> None:
    source = open_images(folder)
    assert shapes(source) == [{"image": (2, 3, 2, 2)}, {"image": (1, 3, 2, 2)}]
    assert source.total == 2
    assert next(iter(source)).feeds["image"][:, :, 0, 0].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_batch_names_its_first_and_last_image(folder: Path) -> None:
    assert origins(open_images(folder))[0] == f"{folder / '1.png'} to 2.BMP"


def test_class_subfolders_take_turns(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "empty/notes.txt"):
        if name.endswith(".png"):
            save(tmp_path / name)
        else:
            (tmp_path / "empty").mkdir()
            (tmp_path / name).write_text("")
    assert origins(open_images(tmp_path)) == [
        f"{tmp_path / 'cat' / '1.png'} to {Path('dog/1.png')}",
        f"{tmp_path / 'cat' / '2.png'} to {Path('cat/3.png')}",
    ]


def test_the_preprocess_function_may_be_in_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text(
        "import numpy as np\ndef prepare(image):\n  return np.asarray(image, np.float32).transpose(2, 0, 1)\n"
    )
    assert shapes(open_images(folder, f"{tmp_path / 'prepare.py'}:prepare"))[0] == {"image": (2, 3, 2, 2)}


def test_the_preprocess_function_may_return_a_tensor(folder: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    source = open_images(folder, lambda image: torch.from_numpy(prepare(image)))
    assert next(iter(source)).feeds["image"].dtype == np.float32


def test_images_need_a_preprocess_function(folder: Path) -> None:
    with pytest.raises(UsageError, match="images need `preprocess`"):
        open_data(folder, (IMAGE,))


def test_images_feed_only_one_input(folder: Path) -> None:
    with pytest.raises(DataError, match="images feed one input, the model has 2"):
        open_data(folder, (IMAGE, Y), preprocess=prepare)


def test_images_of_different_shapes_are_refused(folder: Path) -> None:
    save(folder / "2.BMP", size=(3, 2))
    with pytest.raises(DataError, match=r"2\.BMP: preprocessed to shape \[3, 2, 3\], 1\.png to \[3, 2, 2\]"):
        list(open_images(folder))


def test_a_damaged_image_is_refused(folder: Path) -> None:
    (folder / "2.BMP").write_bytes((folder / "1.png").read_bytes()[:45])
    with pytest.raises(DataError, match=r"2\.BMP: not a readable image"):
        list(open_images(folder))


def test_an_error_of_the_function_is_not_blamed_on_the_image(folder: Path) -> None:
    with pytest.raises(DataError, match=r"1\.png: the preprocess function fails: FileNotFoundError"):
        list(open_images(folder, lambda image: Path("no such mean file").read_bytes()))


def test_an_error_in_a_file_names_the_line(folder: Path) -> None:
    file = folder / "own.py"
    file.write_text("def preprocess(image):\n    size = 0\n    return image.width / size\n")
    with pytest.raises(DataError, match=r"1\.png: the preprocess function fails: own\.py line 3: ZeroDivisionError"):
        list(open_images(folder, f"{file}:preprocess"))


@pytest.mark.parametrize(
    ("returned", "kind"), [(None, "None"), ({"image": np.zeros((3, 2, 2))}, "dict"), ([None, 1], "list")]
)
def test_a_function_that_returns_no_array_is_refused(folder: Path, returned: Any, kind: str) -> None:
    message = rf"1\.png: the preprocess function returns {kind}: it must return the array of one sample"
    with pytest.raises(DataError, match=message):
        list(open_images(folder, lambda image: returned))


def test_without_pillow_the_error_has_the_pip_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingPackageError, match=r'pip install "trt-ptq\[images\]"'):
        open_images(folder)
