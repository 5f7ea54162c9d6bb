"""A user's function becomes batches; what cannot is told in one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.opened import X, one_line, shapes
from trt_ptq.data.open import open_data
from trt_ptq.errors import DataError, UsageError


class TestPythonFunction:
    def write(self, folder: Path, code: str) -> str:
        (folder / "json.py").write_text(f"import numpy as np\n{code}")  # a name that Python's own library has
        return f"{folder / 'json.py'}:batches"

    def test_yields_feed_dicts_anew_for_each_pass(self, tmp_path: Path) -> None:
        spec = self.write(tmp_path, "def batches():\n  for n in (2, 3):\n    yield {'x': np.zeros((n, 4), np.float32)}")
        source = open_data(spec, (X,))
        assert shapes(source) == shapes(source) == [{"x": (2, 4)}, {"x": (3, 4)}]
        assert source.total is None
        assert [batch.origin for batch in source] == [f"{spec}, batch 0", f"{spec}, batch 1"]

    def test_in_a_package_may_import_from_it(self, tmp_path: Path) -> None:
        package = tmp_path / "some_users_package"
        (package / "inner").mkdir(parents=True)
        for folder in (package, package / "inner"):
            (folder / "__init__.py").write_text("")
        (package / "sizes.py").write_text("SIZES = (1, 2)")
        (package / "inner" / "load.py").write_text(
            "import numpy as np\nfrom ..sizes import SIZES\n"
            "def batches():\n  return [{'x': np.zeros((n, 4), np.float32)} for n in SIZES]"
        )
        source = open_data(f"{package / 'inner' / 'load.py'}:batches", (X,))
        assert shapes(source) == [{"x": (1, 4)}, {"x": (2, 4)}]

    def test_may_import_its_neighbours_and_define_dataclasses(self, tmp_path: Path) -> None:
        (tmp_path / "a_neighbour_of_it.py").write_text("ROWS = 3")
        (tmp_path / "load.py").write_text(
            "from __future__ import annotations\nimport numpy as np\nfrom dataclasses import dataclass\n"
            "from a_neighbour_of_it import ROWS\n@dataclass\nclass Config:\n  rows: int = ROWS\n"
            "def batches():\n  yield {'x': np.zeros((Config().rows, 4), np.float32)}"
        )
        assert shapes(open_data(f"{tmp_path / 'load.py'}:batches", (X,))) == [{"x": (3, 4)}]

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("def batches():\n  yield {}\n  raise OSError('disk\\nfull')", "fails at batch 1: OSError: disk full"),
            ("def batches():\n  raise OSError('none')\n  yield", "fails at batch 0: OSError: none"),
            ("def batches(): return None", "fails at batch 0: TypeError"),
            (
                "def batches():\n  yield {'x': [[1], [1, 2]]}",
                "batch 0: input 'x' cannot be converted to a numpy array: ValueError",
            ),
            ("def batches():\n  yield 3", "batch 0: expected a dict of arrays by input name, got int"),
        ],
    )
    def test_a_failure_names_the_batch(self, tmp_path: Path, code: str, told: str) -> None:
        with pytest.raises(DataError, match=told) as caught:
            list(open_data(self.write(tmp_path, code), (X,)))
        one_line(caught.value)

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("def other(): pass", "no function 'batches'; it has: other"),
            ("1 / 0", "fails on import: ZeroDivisionError"),
        ],
    )
    def test_a_function_that_cannot_be_had_is_a_usage_error(self, tmp_path: Path, code: str, told: str) -> None:
        with pytest.raises(UsageError, match=told):
            open_data(self.write(tmp_path, code), (X,))

    def test_a_missing_file_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such Python file"):
            open_data(f"{tmp_path / 'absent.py'}:batches", (X,))

    def test_an_interrupt_is_not_swallowed(self, tmp_path: Path) -> None:
        spec = self.write(tmp_path, "def batches():\n  raise KeyboardInterrupt\n  yield")
        with pytest.raises(KeyboardInterrupt):
            list(open_data(spec, (X,)))
