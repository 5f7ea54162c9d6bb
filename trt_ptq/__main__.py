"""Entry point of the console script, and of python -m trt_ptq."""

import sys
from io import StringIO


def main() -> None:
    """Run the command line. To import it takes a second, in which Ctrl-C shall not give a traceback either."""
    sys.stdout = sys.stdout or StringIO()  # closed by the shell: >&-
    sys.stderr = sys.stderr or StringIO()
    try:
        from trt_ptq.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
