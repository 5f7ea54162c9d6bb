"""The generated pages of the documentation, and the checks that Zensical's strict mode does not make."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import trt_ptq
from trt_ptq.lint.linter import RULES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_lint_rule_has_a_section(generate: ModuleType) -> None:
    sections = re.findall(r"^### (.+)$", generate.lint_page(), re.MULTILINE)
    assert sorted(sections) == sorted(rule.id for rule in RULES)


def test_every_public_name_has_a_heading(generate: ModuleType) -> None:
    headings = re.findall(r"^ +heading: trt_ptq\.(\w+)$", generate.api_page(), re.MULTILINE)
    assert set(headings) == set(trt_ptq.__all__) - {"__version__"}


def test_every_command_has_a_section(generate: ModuleType) -> None:
    page = generate.cli_page()
    assert {"## `trt-ptq quantize`", "## `trt-ptq cache`", "### `trt-ptq cache show`"} <= set(page.splitlines())
    assert not re.search(r"^\* `.*\.\.\.$", page, re.MULTILINE)  # no summary is cut off


@pytest.mark.parametrize(
    ("html", "problems"),
    [
        ('<a href="https://example.com/">a link is no load</a><script src="../assets/a.js"></script>', []),
        ('<script async src="https://example.com/a.js">', ["page.html loads https://example.com/a.js"]),
        ("<link rel=stylesheet href=//example.com/a.css>", ["page.html loads //example.com/a.css"]),
    ],
)
def test_loads_from_another_host_are_problems(
    generate: ModuleType, tmp_path: Path, html: str, problems: list[str]
) -> None:
    (tmp_path / "page.html").write_text(html)
    assert generate.site_problems(tmp_path) == problems


def test_an_empty_site_is_a_problem(generate: ModuleType, tmp_path: Path) -> None:
    assert generate.site_problems(tmp_path) != []
