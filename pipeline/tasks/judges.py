"""A process that judges rows (judging.py), and a new one when it hangs or is killed."""

import io
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from engine.errors import UserError
from pipeline.tasks.base import Row, Task
from pipeline.tasks.judging import Judged, without_text
from pipeline.tasks.sandbox import GRACE_S, Limits, SandboxError

READING_S = 60.0
"""Seconds beyond the row's limit, in which its code is found or its checkers are imported."""
ROOT = Path(__file__).parents[2]


class JudgeError(Exception):
    """The task itself failed on a row: a fault of the task, not of the answer."""


class Judge:
    """Judges one row at a time. What hangs is killed; what is killed is tried once more, since
    another row may have done it."""

    def __init__(self, task: Task, limits: Limits) -> None:
        self._task = task
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] = io.BytesIO()

    def judge(self, row: Row) -> Judged:
        """
        Raises:
            SandboxError: the sandbox is broken.
            UserError: the task needs something that is missing.
            JudgeError: the task raised an error.
        """
        for is_last in (False, True):
            try:
                reply = self._reply(row)
            except TimeoutError:
                self._kill()
                return without_text(row, self._task, "timeout")
            except (EOFError, BrokenPipeError):
                ended = self._ended()
                if is_last:
                    return without_text(row, self._task, f"failed: {ended}")
                continue
            if isinstance(reply, SandboxError | UserError):
                raise reply
            assert isinstance(reply, Judged)
            return reply
        raise AssertionError("the second try returns")

    def close(self) -> None:
        """End the process, after the row that it is at."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _reply(self, row: Row) -> Any:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(row, process.stdin)
        process.stdin.flush()
        longest_s = max(self._limits.timeout_s, self._task.longest_s)
        if not _is_readable(process.stdout, longest_s + GRACE_S + READING_S):
            raise TimeoutError
        return pickle.load(process.stdout)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 as long as the process lives
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from pipeline.tasks.judging import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=ROOT,
                start_new_session=True,  # so that Ctrl-C reaches the scorer alone
            )
            assert self._process.stdin is not None
            pickle.dump((sys.path, self._task, self._limits), self._process.stdin)
        return self._process

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def _ended(self) -> str:
        """How the process ended.

        Raises:
            JudgeError: by an error of the task.
        """
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        if code >= 0:
            self._errors.seek(0)
            tail = self._errors.read().decode(errors="replace").strip()[-2000:]
            raise JudgeError(tail or f"the process that judges ended with status {code}")
        return f"its judge was killed by {signal.Signals(-code).name}"


def _is_readable(stream: IO[bytes], timeout_s: float) -> bool:
    """Wait for a reply; False if there is none in time. (A stream that has ended is readable.)"""
    end = time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if poll.poll(1000 * left):
            return True
    return False
