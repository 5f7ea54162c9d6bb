"""Puts the commands together, and turns errors into one line and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

from trt_ptq._internal.signals import sigterm_as_interrupt
from trt_ptq.cli import cache, console, doctor
from trt_ptq.cli.commands import (
    bench,
    build,
    calibrate,
    compare,
    inspect,
    lint,
    merge,
    qdq,
    quantize,
    report,
    sensitivity,
    table,
)
from trt_ptq.errors import TrtPtqError, UsageError
from trt_ptq.version import __version__

UNEXPECTED, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="trt-ptq",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        console.say(f"trt-ptq {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Verified INT8 models and TensorRT engines from a float ONNX model and a few hundred inputs.

    Exit status: 0 done and within the accuracy gate; 1 an unexpected error; 2 bad input or usage; 3 done, but the
    gate failed; 130 interrupted or terminated.

    Example: trt-ptq quantize model.onnx --data calibration/ --out int8/
    """


for command in (
    quantize,
    calibrate,
    merge,
    table,
    qdq,
    sensitivity,
    lint,
    build,
    inspect,
    bench,
    compare,
    report,
    doctor,
):
    name = command.__name__.rpartition(".")[2]
    app.command(name)(getattr(command, name))
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run a command, and end with its exit status."""
    try:
        _check_nonempty(sys.argv[1:])
        with sigterm_as_interrupt():
            status = app(standalone_mode=False)
            sys.stdout.flush()
        if status == INTERRUPTED:  # Ctrl-C: newer versions of Typer give this back
            console.fail("interrupted")
        sys.exit(status)
    except TrtPtqError as error:
        console.fail(str(error))
        sys.exit(BAD_INPUT)
    except (typer.Abort, console.Interrupted) as interrupt:
        console.fail(str(interrupt) or "interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC) and error.filename is None:
            _give_up_output(error)
        if hasattr(error, "format_message"):  # a usage error of Typer, whose base class differs between its versions
            if message := error.format_message().rstrip("."):  # none where the help was shown
                console.fail(f"{message}: see --help")
            sys.exit(BAD_INPUT)
        if os.environ.get("TRT_PTQ_DEBUG"):
            raise
        console.fail(
            f"unexpected {type(error).__name__}: {error} (TRT_PTQ_DEBUG=1 shows where; please report it with that)"
        )
        sys.exit(UNEXPECTED)


def _check_nonempty(arguments: list[str]) -> None:
    """An unset variable in a script would mean this folder, or quietly nothing.

    Raises:
        UsageError: one of `arguments` is empty; after which one.
    """
    for before, argument in pairwise(["trt-ptq", *arguments]):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            after = f"after {before}" if not argument else f"in {argument}"
            raise UsageError(f"an empty value {after}: is a variable unset?")


def _give_up_output(error: OSError) -> NoReturn:
    """End where standard output takes no more: quietly where its reader, as `head`, has what it wanted."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try again as it ends
    if error.errno == errno.EPIPE:
        sys.exit(UNEXPECTED)
    console.fail(f"cannot write to standard output: {error.strerror}")
    sys.exit(BAD_INPUT)
