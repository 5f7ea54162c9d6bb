"""The library names parameters, the command line its options."""

from __future__ import annotations

import pytest
import typer.main

from trt_ptq.cli.main import app
from trt_ptq.cli.option_names import OPTIONS, with_options


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lower `max_drop` or pass more `test_data`", "lower --max-drop or pass more --test-data"),
        ("write `max_drop=1%`", "write --max-drop 1%"),
        ("`shapes`: unknown input 'y'", "--shape: unknown input 'y'"),
        ("see `trt-ptq cache convert` and `load_table`", "see `trt-ptq cache convert` and `load_table`"),
    ],
)
def test_parameters_in_backticks_become_options(text: str, shown: str) -> None:
    assert with_options(text) == shown


def test_every_option_exists() -> None:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = {option for command in commands for parameter in command.params for option in parameter.opts}
    options |= {option for command in commands for parameter in command.params for option in parameter.secondary_opts}
    assert set(OPTIONS.values()) - {"--exclude", "--include", "--technique", "--lower-is-better"} <= options
