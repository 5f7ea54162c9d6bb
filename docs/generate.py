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
from trt_ptq.lint.finding import Rule
from trt_ptq.lint.linter import FAMILIES

CLI_MODULE = "trt_ptq.cli.main"
LINT_INTRODUCTION = """# Lint rules

`trt-ptq lint` checks a Q/DQ model, made by any tool, for what TensorRT would reject, get wrong or run slowly.

- **error**: TensorRT rejects the model, or the results are wrong.
- **warning**: the engine is slower or less accurate than it could be.
- **note**: nothing is wrong, but the model does not run on all GPUs.

Each rule ends with its evidence. "Observed" means: an engine for such a model was built with TensorRT-RTX 1.7.1,
without a GPU, and its plan lists the operand types of convolutions and matrix products; nothing was executed. "NVIDIA"
refers to "Working with Quantized Types" in the TensorRT developer guide.
"""

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FROM_ANOTHER_HOST = re.compile(
    r"""<(?:script|img|iframe|source|link)\b[^>]*\s(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", re.IGNORECASE
)


def cli_page() -> str:
    """The page that Typer makes of the command line, with whole summaries: Typer cuts them after 45 characters."""
    command = [sys.executable, "-m", "typer", CLI_MODULE, "utils", "docs", "--name", "trt-ptq"]
    command += ["--title", "Command line"]
    page = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    summaries = dict(re.findall(r"^#+ `(trt-ptq .+)`\n\n(.+)$", page, re.MULTILINE))
    lines, group = [], "trt-ptq"
    for line in page.splitlines():
        if heading := re.fullmatch(r"#+ `(.+)`", line):
            group = heading[1]
        entry = re.fullmatch(r"\* `([\w-]+)`: .*\.\.\.", line)
        lines.append(f"* `{entry[1]}`: {summaries[f'{group} {entry[1]}']}" if entry else line)
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """A mkdocstrings directive for each public name; it collects signature and docstring when the site is built."""
    names = [name for name in sorted(trt_ptq.__all__, key=str.lower) if not name.startswith("_")]
    return "\n".join(["# Python API\n", *map(_api_entry, names)])


def _api_entry(name: str) -> str:
    """mkdocstrings reads source code, and needs the module that defines `name`: trt_ptq only forwards it."""
    value = getattr(trt_ptq, name)
    home = f"{value.__module__}.{value.__qualname__}"
    return f"::: {home}\n    options:\n      heading: trt_ptq.{name}\n      toc_label: {name}\n"


def lint_page() -> str:
    """A section for each family of rules, in it one for each rule, which links can name."""
    lines = [LINT_INTRODUCTION]
    for family, rules in FAMILIES.items():
        lines += [f"## {family}\n", *map(_lint_entry, rules)]
    return "\n".join(lines)


def _lint_entry(rule: Rule) -> str:
    paragraphs = [
        f"### {rule.id}",
        f"**{rule.severity}**: {rule.effect}.",
        f"What to do: {rule.remedy}.",
        rule.evidence,
    ]
    return "\n\n".join(paragraphs) + "\n"


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
