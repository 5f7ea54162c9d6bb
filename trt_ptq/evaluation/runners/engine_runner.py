"""Running engines for evaluation, on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.errors import DataError
from trt_ptq.types import Array, Feeds, TensorSpec


@dataclass(frozen=True)
class EngineRunner:
    """A loaded engine of TensorRT or TensorRT for RTX; `name` is what messages call it."""

    name: str
    session: EngineSession

    def infer(self, feeds: Feeds, origin: str) -> dict[str, Array]:
        """Compute the outputs for one batch, by name.

        Inputs that the engine does not have, because nothing in it reads them, are left out.

        Args:
            feeds: input arrays by name.
            origin: where the batch comes from, for messages.

        Raises:
            DataError: names, types or shapes do not fit the engine.
            EngineError: the engine fails.
        """
        return self._run(self.session.run, feeds, origin)

    def infer_debug_tensors(self, feeds: Feeds, origin: str) -> dict[str, Array]:
        """Compute the debug tensors for one batch, by name; arguments and errors as those of `infer`."""
        return self._run(self.session.debug, feeds, origin)

    def _run(self, run: Callable[[Feeds], dict[str, Array]], feeds: Feeds, origin: str) -> dict[str, Array]:
        if feeds.keys() > set(self.session.inputs):
            feeds = {name: feeds[name] for name in self.session.inputs}
        try:
            return run(feeds)
        except DataError as error:
            raise DataError(f"{origin}: {error}") from error


@contextmanager
def engine_runner(path: Path) -> Iterator[EngineRunner]:
    """Load the engine at `path`.

    Raises:
        EngineError, MissingPackageError: see `load_engine`.
    """
    with EngineSession(path) as session:
        yield EngineRunner(path.name, session)


def engine_inputs(path: Path) -> tuple[TensorSpec, ...]:
    """Read the inputs of an engine.

    Raises:
        EngineError, MissingPackageError: see `load_engine`.
    """
    session = EngineSession(path)
    shapes = {name: tuple(session.engine.get_tensor_shape(name)) for name in session.inputs}
    return tuple(
        TensorSpec(name, session.dtypes[name], tuple("?" if size == -1 else size for size in shape))
        for name, shape in shapes.items()
    )
