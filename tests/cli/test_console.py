"""What the commands print."""

from __future__ import annotations

import json
import math

import pytest

from trt_ptq.cli.console import print_json


def test_json_is_standard_where_a_number_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """The SQNR of equal outputs is infinite."""
    print_json({"sqnr_db": math.inf, "cosine": math.nan, "top1": None, "max_abs": 0.5})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"sqnr_db": "Infinity", "cosine": "NaN", "top1": None, "max_abs": 0.5}
