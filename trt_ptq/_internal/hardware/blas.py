"""NumPy's products of matrices, with results that do not depend on the number of cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute products of matrices on one thread: OpenBLAS adds in another order on several, and rounds otherwise."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
