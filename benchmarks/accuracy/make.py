"""One row's model, made in a process of its own, so that memory and time can be limited and nothing leaks.

    python -m benchmarks.accuracy.make MODEL ROW RESULT

Leaves RESULT, and RESULT.json: what `Made` holds, or `failed` and why.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.speed.peer import ROOT

MEMORY_BYTES = 14 << 30  # of address space


def make_apart(name: str, row: str, result: Path, limit: float) -> dict[str, Any]:
    """The result of the other process; `failed` where there is none, or it took more than `limit` seconds."""
    command = [sys.executable, "-m", "benchmarks.accuracy.make", name, row, str(result)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            cwd=result.parent,  # ONNX Runtime leaves files where it runs
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"not ready after {limit:.0f} s"}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with modelopt's process, if there is one
                process.wait()
        file = Path(f"{result}.json")
        if file.exists():
            answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return answer
        log.seek(0)
        last = (log.read().strip().splitlines() or ["no message"])[-1]
        return {"failed": f"ended with status {status}: {last}"}


def main(name: str, row: str, result: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from benchmarks.accuracy.rows import ROWS

    answer: dict[str, Any]
    try:
        answer = asdict(ROWS[row](name, Path(result)))
    except MemoryError as error:
        answer = {"failed": f"needs more than {MEMORY_BYTES >> 30} GiB: {error}"}
    except Exception as error:  # whatever a peer raises is a row that says so
        answer = {"failed": f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[-1]}"}
    Path(f"{result}.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
