"""Fixtures of the engine tests."""

from __future__ import annotations

import pytest

from tests.standins.libraries import Standins, build


@pytest.fixture(scope="session")
def standins() -> Standins:
    """The stand-in libraries, compiled once."""
    return build()
