"""Functions that users name as `file.py:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from trt_ptq.errors import UsageError


@dataclass(frozen=True)
class UserFunction:
    """The function `name` of `file`. It runs in `_user_code`.

    Pickling stores only the file and the name; another process loads the function from there.
    """

    file: Path
    name: str
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        with _user_code(self.file):
            return self.function(*arguments)

    def steps(self, iterable: Iterable[Any]) -> Iterator[Any]:
        """Iterate over what the function returned, which runs its code too."""
        with _user_code(self.file):
            steps = iter(iterable)
        while True:
            with _user_code(self.file):
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step

    def __reduce__(self) -> tuple[Callable[[str], UserFunction], tuple[str]]:
        return load_function, (f"{self.file}:{self.name}",)


def describe_failure(error: Exception, file: Path | None) -> str:
    """Describe an exception of a user's function, with the line of `file` that it comes from."""
    lines = [] if file is None else _lines_in(file, error) or _lines_in(file, error.__cause__)
    where = f"{file.name} line {lines[-1]}: " if file is not None and lines else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"


def user_file(function: object) -> Path | None:
    """The file of a function that was named as `file.py:function`."""
    return function.file if isinstance(function, UserFunction) else None


def _lines_in(file: Path, error: BaseException | None) -> list[int | None]:
    frames = [] if error is None else extract_tb(error.__traceback__)
    return [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]


def read_from(*specs: str | None) -> list[Path]:
    """The files and folders that data or functions are read from; None stands for no file."""
    return [Path(spec.rpartition(":")[0] if ".py:" in spec else spec) for spec in specs if spec is not None]


def load_function(spec: str) -> UserFunction:
    """Import the function that `spec`, "path/to/file.py:function", names.

    A file in a package (its folder has `__init__.py`) is imported as part of it, so that its relative imports work. A
    file that several specs name is executed once, unless it has changed.

    Raises:
        UsageError: no such file or function, or the file fails on import.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not name:
        raise UsageError(f"{spec!r} does not name a function: write path/to/file.py:function")
    if not path.is_file():
        raise UsageError(f"{path}: no such Python file")
    try:
        with _user_code(path):
            module = _import_file(path.resolve())
    except Exception as error:
        raise UsageError(f"{path} fails on import: {describe_failure(error, path)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{path} has no function {name!r}; it has: {', '.join(offered) or 'none'}")
    return UserFunction(path.absolute(), name, function)


@contextmanager
def _user_code(file: Path) -> Iterator[None]:
    """While code of `file` runs, it can import its neighbours, its output goes to standard error (so that --json stays
    JSON), and a `sys.exit(0)` in it is an error like others, not our success."""
    root, _ = _package_root(file.resolve())
    sys.path.insert(0, str(root))
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        raise RuntimeError(f"it calls sys.exit({error.code!r})") from error
    finally:
        with suppress(ValueError):  # the user's code may have changed the path
            sys.path.remove(str(root))


def _package_root(path: Path) -> tuple[Path, list[str]]:
    """The folder that imports of `path` start from, and the parts of its module name."""
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    return root, names


def _import_file(path: Path) -> ModuleType:
    _, names = _package_root(path)
    dotted = ".".join(names)
    loaded = sys.modules.get(dotted)
    loaded_from = getattr(loaded, "__file__", None)  # modules such as `time` are built in
    if loaded is not None and loaded_from is not None and Path(loaded_from).resolve() == path:
        return loaded
    if len(names) > 1:
        return importlib.import_module(dotted)
    # a name of its own, because other modules may have the file's name; with its content, because it may be edited
    digest = hashlib.blake2b(str(path).encode() + b"\n" + path.read_bytes(), digest_size=8).hexdigest()
    name = f"trt_ptq_user_file_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
