"""The library names parameters, the command line its options."""

from __future__ import annotations

import pytest

from trt_ptq.cli.lazy_group import COMMANDS, load_command
from trt_ptq.report.option_names import OPTIONS, with_options


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lower `max_drop` or pass more `test_data`", "lower --max-drop or pass more --test-data"),
        ("write `max_drop=1%`", "write --max-drop 1%"),
        ("`shapes=past.*.key=1x2`", "--shape 'past.*.key=1x2'"),
        ("`shapes`: unknown input 'y'", "--shape: unknown input 'y'"),
        ("see `trt-ptq cache convert` and `load_table`", "see `trt-ptq cache convert` and `load_table`"),
    ],
)
def test_parameters_in_backticks_become_options(text: str, shown: str) -> None:
    assert with_options(text) == shown


def test_every_option_exists() -> None:
    parameters = [parameter for name in COMMANDS for parameter in getattr(load_command(name), "params", [])]
    assert set(OPTIONS.values()) <= {option for parameter in parameters for option in parameter.opts}
