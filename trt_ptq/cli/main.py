"""Runs a command, and turns errors into one line and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

from trt_ptq._internal.signals import sigterm_as_interrupt
from trt_ptq.cli import console
from trt_ptq.cli.lazy_group import LazyGroup, reflow
from trt_ptq.errors import TrtPtqError, UsageError
from trt_ptq.version import __version__

UNEXPECTED, BAD_INPUT, INTERRUPTED = 1, 2, 130

_HELP = """
Quantize ONNX models to INT8 for TensorRT, and verify the accuracy of the result.

Exit status: 0 success, and --max-drop and --require-speedup are met; 1 unexpected error; 2 bad input or usage; 3
success, but one of these is not met, or lint found errors; 130 interrupted or terminated.

Example: trt-ptq quantize model.onnx --data calibration/ --out int8/
"""

app = typer.Typer(
    name="trt-ptq",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        console.say(f"trt-ptq {__version__}")
        raise typer.Exit


@app.callback(help=reflow(_HELP))
def root(
    _shown: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print errors only (and the document of --json).")
    ] = False,
) -> None:
    """Settings of all commands."""
    console.set_quiet(quiet)


def main() -> None:
    """Run a command, and end with its exit status."""
    console.start("--json" in sys.argv)
    try:
        _check_nonempty(sys.argv[1:])
        with sigterm_as_interrupt(), console.log_shown():
            status = app(_quiet_first(sys.argv[1:]), standalone_mode=False, prog_name="trt-ptq")
            sys.stdout.flush()
        if status == INTERRUPTED:  # Ctrl-C: newer versions of Typer return this
            console.fail("interrupted")
        sys.exit(status)
    except TrtPtqError as error:
        console.fail(str(error), BAD_INPUT)
        sys.exit(BAD_INPUT)
    except (typer.Abort, console.Interrupted) as interrupt:
        console.fail(str(interrupt) or "interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC) and error.filename is None:
            _give_up_output(error)
        if hasattr(error, "format_message"):  # a usage error of Typer, whose base class differs between its versions
            if message := error.format_message().rstrip("."):  # none where the help was shown
                message += _expanded_pattern_hint(message, sys.argv)
                console.fail(f"{message.replace('Value error, ', '')}: see --help", BAD_INPUT)
            sys.exit(BAD_INPUT)
        if os.environ.get("TRT_PTQ_DEBUG"):
            raise
        console.fail(
            f"unexpected {type(error).__name__}: {error} (please report it, with the traceback that TRT_PTQ_DEBUG=1 "
            "shows)"
        )
        sys.exit(UNEXPECTED)


def _quiet_first(arguments: list[str]) -> list[str]:
    """Move --quiet, which may also follow the command, before it."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if not {"--quiet", "-q"} & set(options):
        return arguments
    kept = [argument for argument in options if argument not in ("--quiet", "-q")]
    return ["--quiet", *kept, *arguments[len(options) :]]


def _expanded_pattern_hint(message: str, arguments: Collection[str]) -> str:
    """What to do where the shell has expanded a pattern after --data to several files."""
    if "unexpected extra argument" not in message or not {"--data", "--test-data"} & set(arguments):
        return ""
    return ": --data takes one value: give the folder, not a pattern of files"


def _check_nonempty(arguments: list[str]) -> None:
    """Reject empty arguments: an unset variable in a script would mean the current folder, or nothing.

    Raises:
        UsageError: an argument is empty; names the one before it.
    """
    for before, argument in pairwise(["trt-ptq", *arguments]):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            after = f"after {before}" if not argument else f"in {argument}"
            raise UsageError(f"empty value {after}: is a variable unset?")


def _give_up_output(error: OSError) -> NoReturn:
    """End where standard output cannot be written: silently if its reader, such as `head`, has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try again at exit
    if error.errno == errno.EPIPE:
        sys.exit(UNEXPECTED)
    console.fail(f"cannot write to standard output: {error.strerror}")
    sys.exit(BAD_INPUT)
