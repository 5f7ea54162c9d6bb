"""The library's warnings where the application has not configured logging."""

from __future__ import annotations

import logging
import sys


class DefaultHandler(logging.Handler):
    """Prints warnings to standard error, in the place of Python's handler of last resort, which prints bare messages.

    It is silent where any other handler sees the message.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("trt_ptq %(levelname)s: %(message)s"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether no other handler sees `record`."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Print `record`."""
        sys.stderr.write(f"{self.format(record)}\n")
