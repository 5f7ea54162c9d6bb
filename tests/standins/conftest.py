from __future__ import annotations

import pytest

from .build import Standins, build


@pytest.fixture(scope="session")
def standins() -> Standins:
    return build()
