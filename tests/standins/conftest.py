from __future__ import annotations

import pytest

from . import packages
from .libraries import Standins, build


@pytest.fixture(scope="session")
def standins() -> Standins:
    return build()


@pytest.fixture(params=packages.TENSORRT_VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)
