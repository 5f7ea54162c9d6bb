"""Write the generated pages of the documentation: python docs/generate.py. With --check-site, check the built site.

Imports of trt_ptq are at the top, so that a module that moves is changed in one place.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import trt_ptq
from trt_ptq.graph.lint import encoding, fusion, granularity, operands, pairs, precision, ranges, scales
from trt_ptq.graph.lint.finding import Rule

CLI_MODULE = "trt_ptq.cli.main"
LINT_FAMILIES = {
    "Integer types and zero points": encoding.RULES,
    "Scales": scales.RULES,
    "Granularity": granularity.RULES,
    "Pairs of QuantizeLinear and DequantizeLinear": pairs.RULES,
    "Operands": operands.RULES,
    "Fusion": fusion.RULES,
    "Precision": precision.RULES,
    "Ranges of activations": ranges.RULES,
}
LINT_INTRODUCTION = """# Lint rules

`trt-ptq lint` checks a Q/DQ model, made by any tool, for what TensorRT would reject, get wrong or run slowly.

- **error**: TensorRT rejects the model, or the results are wrong.
- **warning**: the engine is slower or less accurate than it could be.
- **note**: nothing is wrong, but the model does not run everywhere.
"""

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FROM_ANOTHER_HOST = re.compile(
    r"""<(?:script|img|iframe|source|link)\b[^>]*\s(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", re.IGNORECASE
)


def cli_page() -> str:
    """The page that Typer makes of the command line."""
    command = [sys.executable, "-m", "typer", CLI_MODULE, "utils", "docs", "--name", "trt-ptq"]
    command += ["--title", "Command line"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def api_page() -> str:
    """A mkdocstrings directive for each public name; it collects signature and docstring when the site is built."""
    names = [name for name in sorted(trt_ptq.__all__, key=str.lower) if not name.startswith("_")]
    return "\n".join(["# Python API\n", *(f"## trt_ptq.{name}\n\n::: {_home(name)}\n" for name in names)])


def _home(name: str) -> str:
    """Where the public `name` is defined: mkdocstrings reads source code, in which trt_ptq only forwards it."""
    value = getattr(trt_ptq, name)
    module = getattr(value, "__module__", "trt_ptq")
    return f"{module}.{getattr(value, '__qualname__', name)}"


def lint_page() -> str:
    """One table for each family of rules."""
    lines = [LINT_INTRODUCTION]
    for family, rules in LINT_FAMILIES.items():
        lines += [f"## {family}\n", *_lint_table(rules), ""]
    return "\n".join(lines)


def _lint_table(rules: tuple[Rule, ...]) -> Iterator[str]:
    yield "| rule | severity | effect | what to do | evidence |"
    yield "|---|---|---|---|---|"
    for rule in rules:
        evidence = " ".join((rule.find.__doc__ or "").split())
        cells = [f"`{rule.name}`", rule.severity, rule.effect, rule.remedy, evidence]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


PAGES = {"cli.md": cli_page, "api.md": api_page, "lint-rules.md": lint_page}


def nav_problems() -> list[str]:
    """Pages that are missing, or missing from the navigation: Zensical's strict mode reports neither."""
    listed = list(_pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    existing = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    problems = [f"mkdocs.yml: {page} is not in the navigation" for page in existing - {*listed}]
    problems += [f"mkdocs.yml: {page} is in the navigation twice" for page in existing if listed.count(page) > 1]
    return problems + [f"mkdocs.yml: {page} does not exist" for page in {*listed} - existing]


def _pages_in(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages_in(entry)


def site_problems(site: Path) -> list[str]:
    """Scripts, styles, fonts and images that a page of the built site would load from another host."""
    pages = sorted(site.rglob("*.html"))
    problems = [
        f"{page.relative_to(site)} loads {found[1]}"
        for page in pages
        for found in FROM_ANOTHER_HOST.finditer(page.read_text(encoding="utf-8"))
    ]
    return problems if pages else [f"{site}: no page was built"]


def main() -> None:
    """Write the pages, or check the site that was built from them."""
    if sys.argv[1:] == ["--check-site"]:
        problems = site_problems(ROOT / "site")
    else:
        for name, page in PAGES.items():
            (DOCS / name).write_text(page(), encoding="utf-8")
        problems = nav_problems()
    for problem in sorted(problems):
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
