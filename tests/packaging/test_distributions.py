"""The sdist and the wheel: what is in them, and that the wheel works where there is no checkout."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from trt_ptq.version import __version__

pytest.importorskip("build")
pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]
DIST_INFO = f"trt_ptq-{__version__}.dist-info"
INSTALLED_AS = {"trt_ptq": "trt_ptq", "calibrators": "trt_ptq/calibrators", "engines": "trt_ptq/engines"}

IMPORT_ALL = """
import importlib, pkgutil, sys
import trt_ptq
for module in pkgutil.walk_packages(trt_ptq.__path__, "trt_ptq."):
    importlib.import_module(module.name)
for name, module in sorted(sys.modules.items()):
    if name.partition(".")[0] == "trt_ptq":
        print(name, module.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def source_files() -> list[Path]:
    """Files that git tracks or would track, so that nothing left over from an earlier build is among them."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    files = [Path(name) for name in listed.split("\0") if name]
    return [file for file in files if (ROOT / file).is_symlink() or (ROOT / file).is_file()]


def python_modules(files: Iterable[str]) -> set[str]:
    """Names of modules as Python imports them."""
    modules = (file.removesuffix(".py") for file in files if file.endswith(".py"))
    return {module.removesuffix("/__init__").replace("/", ".") for module in modules}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made from the sdist."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    folder = tmp_path_factory.mktemp("distributions")
    for file in source_files():
        target = folder / "source" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, target, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=folder / "source")
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [path] = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel. Its dependencies are those of this interpreter."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    run(
        *(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", "--no-deps"),
        *("--no-index", wheel),
        cwd=wheel.parent,
    )
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # Plain paths: the .pth files in these folders, one of which would add the checkout, are not read.
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return folder


def test_the_wheel_has_the_source_files_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{INSTALLED_AS[file.parts[0]]}/{file.relative_to(file.parts[0]).as_posix()}"
        for file in source_files()
        if file.parts[0] in INSTALLED_AS and not (ROOT / file).is_symlink()
    }
    assert {"trt_ptq/py.typed", "trt_ptq/calibrators/__init__.py", "trt_ptq/engines/__init__.py"} <= expected
    assert any(name.startswith("trt_ptq/report/") and name.endswith(".jinja") for name in expected)
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith(f"{DIST_INFO}/")}
    assert names == expected


def test_the_wheel_built_from_the_checkout_is_that_built_from_the_sdist(wheel: Path, tmp_path: Path) -> None:
    source = wheel.parent / "source"
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, cwd=source)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_sdist_has_files_and_no_links(dist: Path) -> None:
    """A link in an archive does not unpack on every system."""
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert [member.name for member in archive if not member.isfile()] == []


def test_the_metadata_names_the_license_and_the_types(wheel: Path) -> None:
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(f"{DIST_INFO}/METADATA"))
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_the_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "bin" / "trt-ptq", "--version", cwd=tmp_path).split() == ["trt-ptq", __version__]


def test_every_module_of_the_wheel_imports_from_where_it_is_installed(
    installed: Path, wheel: Path, tmp_path: Path
) -> None:
    output = run(installed / "bin" / "python", "-I", "-c", IMPORT_ALL, cwd=tmp_path)
    imported = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert set(imported) == python_modules(zipfile.ZipFile(wheel).namelist())
    assert [path for path in imported.values() if not Path(path).is_relative_to(installed)] == []
