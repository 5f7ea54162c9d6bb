"""Warnings of the library, with and without a configuration of logging."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WARN = "import logging, trt_ptq\n{setup}\nlogging.getLogger('{logger}').warning('a < b')\n"


@pytest.mark.parametrize(
    ("setup", "logger", "shown"),
    [
        ("", "trt_ptq.data", "trt_ptq WARNING: a < b\n"),
        ("logging.basicConfig(format='mine: %(message)s')", "trt_ptq.data", "mine: a < b\n"),
        ("logging.getLogger('trt_ptq').addHandler(logging.NullHandler())", "trt_ptq.data", ""),
        ("logging.getLogger('trt_ptq').setLevel('ERROR')", "trt_ptq.data", ""),
        ("", "trt_ptq.calibrators.table", ""),
    ],
)
def test_a_warning_says_what_it_is_unless_logging_is_configured(setup: str, logger: str, shown: str) -> None:
    code = _WARN.format(setup=setup, logger=logger)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == shown
