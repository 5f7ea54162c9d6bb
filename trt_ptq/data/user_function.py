"""Functions that users give as `file.py:function`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trt_ptq.errors import UsageError


@dataclass(frozen=True)
class UserFunction:
    """The function `name` of `file`; it, and the generator it may return, run in `_users_turn`.

    To another process it travels as where it was loaded from, and is loaded there anew.
    """

    file: Path
    name: str
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        with _users_turn():
            returned = self.function(*arguments)
        return _guarded_steps(returned) if isinstance(returned, Iterator) else returned

    def __reduce__(self) -> tuple[Callable[[str], UserFunction], tuple[str]]:
        return load_function, (f"{self.file}:{self.name}",)


def read_from(*specs: str | None) -> list[Path]:
    """The files and folders that these name, be it of a function; none for None."""
    return [Path(one.rpartition(":")[0] if ".py:" in one else one) for one in specs if one is not None]


def load_function(spec: str) -> UserFunction:
    """Import the function that `spec`, "path/to/file.py:function", names.

    A file inside a package (its folder has `__init__.py`) is imported as part of it, so its own imports work.

    Raises:
        UsageError: no such file or function, or the file fails on import; with the reason.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not name:
        raise UsageError(f"{spec!r} does not name a function: write path/to/file.py:function")
    if not path.is_file():
        raise UsageError(f"{path}: no such Python file")
    try:
        with _users_turn():
            module = _import_file(path.resolve())
    except Exception as error:
        raise UsageError(f"{path} fails on import: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{path} has no function {name!r}; it has: {', '.join(offered) or 'none'}")
    return UserFunction(path.absolute(), name, function)


def _guarded_steps(steps: Iterator[Any]) -> Iterator[Any]:
    while True:
        with _users_turn():
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


@contextmanager
def _users_turn() -> Iterator[None]:
    """While a user's code runs: what it prints goes to standard error, so that --json stays JSON, and a `sys.exit(0)`
    in it is a fault like others, not our success."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        raise RuntimeError(f"it calls sys.exit({error.code!r})") from error


def _import_file(path: Path) -> ModuleType:
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    dotted = ".".join(names)
    alone = f"trt_ptq_user_file_{path.stem}"  # a name of its own: the file may be called like a module of others
    loaded = sys.modules.get(dotted)
    if loaded is not None and Path(loaded.__file__ or "").resolve() == path:
        return loaded
    sys.path.insert(0, str(root))
    try:
        if len(names) > 1:
            return importlib.import_module(dotted)
        found = importlib.util.spec_from_file_location(alone, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[alone] = module  # dataclasses look their module up
        found.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(root))
