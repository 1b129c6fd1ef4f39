"""Runs the steps in processes of their own: side by side what only compiles and checks, one after
the other what is measured. A process that crashes, as a broken kernel makes it, takes nothing else
with it.

The processes are jobs/bench/gpu/worker.py. They say what they find in lines of JSON.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.record import Event, failure, left_out

POLL_S = 0.05
GRACE_S = 10.0
MOST_LINES = 20
"""Of what a failed process said, kept for the report."""
WORKER = (sys.executable, "-m", "jobs.bench.gpu.worker")


class Task:
    """A process. It imports what it needs, and begins when it is told to."""

    def __init__(self, what: str, command: tuple[str, ...]) -> None:
        """`what`: for the report, if the process fails."""
        self.what = what
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._said: deque[str] = deque(maxlen=MOST_LINES)
        self._readers: list[Thread] = []

    def start(self) -> None:
        """Start the process, which then waits for `begin`."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
        )
        self._process = process
        for stream, take in (
            (process.stdout, self._lines.put),
            (process.stderr, self._said.append),
        ):
            reader = Thread(target=lambda its=stream, take=take: _read(its, take), daemon=True)
            reader.start()
            self._readers.append(reader)

    def begin(self, **told: Any) -> None:
        """Let the process begin, starting it if need be."""
        if self._process is None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already: `ending` says how
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.close()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, and all that it said has been read."""
        assert self._process is not None, "the task was not started"
        return self._process.poll() is not None and not any(r.is_alive() for r in self._readers)

    def events(self) -> list[Event]:
        """What the process has found since the last call."""
        lines = [self._lines.get() for _ in range(self._lines.qsize())]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> None:
        """Kill the process if it runs, and wait until all that it said has been read."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()

    def ending(self) -> list[Event]:
        """A failure, if the ended process did not end well."""
        assert self._process is not None
        if self._process.returncode == 0:
            return []
        last = self._said[-1].strip()[:400] if self._said else "it said nothing"
        error = f"exit code {self._process.returncode}: {last}"
        return [failure(self.what, error, "".join(self._said))]


def _read(stream: IO[str] | None, take: Callable[[str], object]) -> None:
    assert stream is not None
    for line in stream:
        take(line)


def side_by_side(tasks: list[Task], num_at_once: int, deadline: Deadline) -> Iterator[Event]:
    """The events of all tasks, as they come. What has not ended in time is stopped."""
    waiting, running = tasks[::-1], list[Task]()
    try:
        while (waiting or running) and not deadline.is_over:
            while waiting and len(running) < num_at_once:
                task = waiting.pop()
                task.begin()
                running.append(task)
            time.sleep(POLL_S)
            for task in list(running):
                ended = task.has_ended
                yield from task.events()
                if ended:
                    yield from task.ending()
                    running.remove(task)
    finally:
        for task in running:
            task.stop()
    for task in running:
        yield from task.events()
        yield left_out(task.what, "stopped: no time left")
    for task in waiting[::-1]:
        yield left_out(task.what, "no time left")


def alone(task: Task, deadline: Deadline, **told: Any) -> Iterator[Event]:
    """The events of one task, as they come. It is told until when it may take (seconds since 1970),
    and stopped if it is not done GRACE_S later."""
    task.begin(until=time.time() + deadline.left_s, **told)
    try:
        while not task.has_ended and deadline.left_s > -GRACE_S:
            time.sleep(POLL_S)
            yield from task.events()
    finally:
        has_ended = task.has_ended
        task.stop()
    yield from task.events()
    yield from task.ending() if has_ended else [left_out(task.what, "stopped: no time left")]
