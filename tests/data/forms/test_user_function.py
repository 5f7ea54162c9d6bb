"""A function of a user's file yields batches; errors name the file, function and batch in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.data.opened import X, one_line, origins, shapes
from trt_ptq.data.open import open_data
from trt_ptq.data.user_function import load_function
from trt_ptq.errors import DataError, UsageError

TWO_BATCHES = "def batches():\n  for n in (2, 3):\n    yield {'x': np.zeros((n, 4), np.float32)}"


def write(folder: Path, code: str, name: str = "load.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"import numpy as np\n{code}")
    return f"{folder / name}:batches"


def test_the_function_is_called_anew_for_each_pass(tmp_path: Path) -> None:
    source = open_data(write(tmp_path, TWO_BATCHES), (X,))
    assert shapes(source) == shapes(source) == [{"x": (2, 4)}, {"x": (3, 4)}]
    assert source.total is None


def test_batches_are_named_by_the_spec(tmp_path: Path) -> None:
    spec = write(tmp_path, TWO_BATCHES)
    assert origins(open_data(spec, (X,))) == [f"{spec}, batch 0", f"{spec}, batch 1"]


@pytest.mark.parametrize("name", ["json.py", "time.py"])  # `time` is built in, and has no file
def test_a_file_may_have_the_name_of_a_standard_module(tmp_path: Path, name: str) -> None:
    assert len(shapes(open_data(write(tmp_path, TWO_BATCHES, name), (X,)))) == 2


class TestImports:
    def test_a_file_in_a_package_may_import_from_it(self, tmp_path: Path) -> None:
        package = tmp_path / "some_users_package"
        (package / "inner").mkdir(parents=True)
        for folder in (package, package / "inner"):
            (folder / "__init__.py").write_text("")
        (package / "sizes.py").write_text("SIZES = (1, 2)")
        code = "from ..sizes import SIZES\ndef batches():\n  return [{'x': np.ones((n, 4), 'f')} for n in SIZES]"
        assert shapes(open_data(write(package / "inner", code), (X,))) == [{"x": (1, 4)}, {"x": (2, 4)}]

    def test_a_file_may_import_its_neighbours_and_define_dataclasses(self, tmp_path: Path) -> None:
        (tmp_path / "a_neighbour_of_it.py").write_text("ROWS = 3")
        (tmp_path / "load.py").write_text(
            "from __future__ import annotations\nimport numpy as np\nfrom dataclasses import dataclass\n"
            "from a_neighbour_of_it import ROWS\n@dataclass\nclass Config:\n  rows: int = ROWS\n"
            "def batches():\n  yield {'x': np.zeros((Config().rows, 4), np.float32)}"
        )
        assert shapes(open_data(f"{tmp_path / 'load.py'}:batches", (X,))) == [{"x": (3, 4)}]

    @pytest.mark.parametrize(
        ("name", "code"),
        [
            ("in_a_call", "def batches():\n  import {0}\n  return [{{'x': np.zeros(({0}.ROWS, 4), np.float32)}}]"),
            (
                "in_an_object",
                "class Lazy:\n  def __getitem__(self, index):\n    import {0}\n    if index: raise IndexError\n"
                "    return {{'x': np.zeros(({0}.ROWS, 4), np.float32)}}\ndef batches(): return Lazy()",
            ),
            ("in_a_step", "def batches():\n  import {0}\n  yield {{'x': np.zeros(({0}.ROWS, 4), np.float32)}}"),
        ],
        ids=["function", "object", "generator"],
    )
    def test_a_function_may_import_neighbours_when_it_runs(self, tmp_path: Path, name: str, code: str) -> None:
        (tmp_path / f"neighbour_{name}.py").write_text("ROWS = 3")
        source = open_data(write(tmp_path, code.format(f"neighbour_{name}")), (X,))
        assert shapes(source) == [{"x": (3, 4)}]

    def test_the_search_path_is_left_unchanged(self, tmp_path: Path) -> None:
        before = list(sys.path)
        shapes(open_data(write(tmp_path, TWO_BATCHES), (X,)))
        assert sys.path == before


class TestExecution:
    COUNTED = "with open({!r}, 'a') as f: f.write('x')\ndef batches(): return []\ndef evaluate(run): return {{}}"

    def test_a_file_that_two_options_name_is_executed_once(self, tmp_path: Path) -> None:
        count = tmp_path / "count"
        spec = write(tmp_path, self.COUNTED.format(str(count)))
        load_function(spec)
        load_function(spec.replace(":batches", ":evaluate"))
        assert count.read_text() == "x"

    def test_a_file_that_has_changed_is_executed_again(self, tmp_path: Path) -> None:
        assert len(shapes(open_data(write(tmp_path, TWO_BATCHES), (X,)))) == 2
        assert len(shapes(open_data(write(tmp_path, "def batches(): return []"), (X,)))) == 0

    def test_files_of_one_name_in_two_folders_are_two_modules(self, tmp_path: Path) -> None:
        first = load_function(write(tmp_path / "a", "VALUE = 1\ndef batches(): return VALUE"))
        second = load_function(write(tmp_path / "b", "VALUE = 2\ndef batches(): return VALUE"))
        assert (first(), second()) == (1, 2)

    def test_a_file_that_failed_is_executed_again(self, tmp_path: Path) -> None:
        spec = write(tmp_path, f"open({str(tmp_path / 'there')!r})\ndef batches(): return []")
        with pytest.raises(UsageError):
            load_function(spec)
        (tmp_path / "there").write_text("")
        load_function(spec)


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (
                "def batches():\n  yield {}\n  raise OSError('disk\\nfull')",
                "batch 1: load.py line 4: OSError: disk full",
            ),
            ("def batches():\n  raise OSError('none')\n  yield", "batch 0: load.py line 3: OSError: none"),
            ("def batches(): return None", "batches returns NoneType, not data"),
            (
                "def batches():\n  import sys\n  sys.exit(0)",
                "batch 0: load.py line 4: RuntimeError: it calls",
            ),
            ("def batches():\n  yield {'x': [[1], [1, 2]]}", "batch 0: input 'x' cannot be converted to a numpy array"),
            ("def batches():\n  yield 3", "batch 0: expected a dict of arrays by input name, got int"),
        ],
    )
    def test_a_failure_names_the_batch(self, tmp_path: Path, code: str, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            list(open_data(write(tmp_path, code), (X,)))
        one_line(caught.value)

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("def other(): pass", "no function 'batches'; it has: other"),
            ("1 / 0", "fails on import: load.py line 2: ZeroDivisionError"),
        ],
    )
    def test_a_function_that_cannot_be_loaded_is_a_usage_error(self, tmp_path: Path, code: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            open_data(write(tmp_path, code), (X,))

    def test_a_missing_file_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such Python file"):
            open_data(f"{tmp_path / 'absent.py'}:batches", (X,))

    def test_an_interrupt_is_not_swallowed(self, tmp_path: Path) -> None:
        spec = write(tmp_path, "def batches():\n  raise KeyboardInterrupt\n  yield")
        with pytest.raises(KeyboardInterrupt):
            list(open_data(spec, (X,)))
