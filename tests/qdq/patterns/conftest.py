"""The `convert` fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qdq.patterns.converted import Convert, converter


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Writes a model, measures it on data, quantizes it by its min-max ranges, and runs both.

    Where TensorRT-RTX is installed it builds an engine too: so it takes the model, whatever it then runs in INT8.
    """
    return converter(tmp_path)
