"""Entry point of the console script, and of python -m trt_ptq."""

import sys


def main() -> None:
    """Run the command line. To import it takes a second, in which Ctrl-C shall not give a traceback either."""
    try:
        from trt_ptq.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
