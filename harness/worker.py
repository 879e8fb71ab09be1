"""`python -m harness.worker ARGUMENTS`: the command line as the child of another process, stopped when that is gone.

The other process holds the child's standard input and never writes to it; when it dies, however it dies, reading gives
the end of the file, and the command is stopped as a scheduler would stop it: with a record that can be resumed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from harness.cli import run_command


def _stop_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    exit_code = run_command(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the command is over: a stop would only hide how it ended
    sys.exit(exit_code)
