"""`-m tests.end_to_end.at_once 0,2/3 ARGS`: pipeline.run with share=0/3 and share=2/3, each in a
process of its own, all of them begun at the same moment.

The libraries are imported once, and the processes forked before these start a thread. The exit code
is that of the first share that fails.
"""

import os
import sys

from pipeline.launch import launch
from pipeline.run import run
from tests.end_to_end.quick_beats import quick_lease


def fork(share: str, read: int, write: int) -> int:
    """Fork a process that runs a share once nobody has `write` open; returns its id."""
    if process := os.fork():
        return process
    os.close(write)
    os.read(read, 1)
    sys.argv.append(f"share={share}")
    code = 0
    try:
        with quick_lease():
            launch(run)
    except SystemExit as stop:
        code = int(stop.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    indices, _, num = sys.argv.pop(1).partition("/")
    read, write = os.pipe()
    children = [fork(f"{index}/{num}", read, write) for index in indices.split(",")]
    os.close(write)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    raise SystemExit(next(filter(None, codes), 0))


if __name__ == "__main__":
    main()
