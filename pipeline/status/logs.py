"""The last lines of the log of a start: what its workers, or Slurm, said before it ended."""

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.slurm.records import StartRecord, Stopped
from pipeline.slurm.view import Submitted, Task
from pipeline.stats.formatting import one_line

NUM_LINES, WIDTH = 10, 160
TAIL_BYTES = 32_768
TRACEBACK = "Traceback (most recent call last):"
TOLD = re.compile(r"torch\.distributed\.\S+\.SignalException: Process \d+ got signal: 15")
"""torchrun's last line after SIGTERM."""


def log_lines(its: Submitted, task: Task, stopped: list[Stopped]) -> Iterator[tuple[str, str]]:
    """The log's path and its last lines; that it is not there, if a start has
    written one."""
    file = _file(its.logs, task, stopped)
    if file is None:
        if task.starts:
            yield "log", f"none in {its.logs} that can be read from this machine"
        return
    yield "log", str(file)
    for line in last_lines(file):
        yield "", f"| {line}"


def last_lines(file: Path) -> list[str]:
    """Without empty lines; of a line that was overwritten on the terminal, its last state."""
    return [one_line(line, WIDTH) for line in _tail(file)[0]][-NUM_LINES:]


def _tail(file: Path) -> tuple[list[str], bool]:
    """The last lines, and whether torchrun was told to end: then it ends with a traceback of its
    own, which says nothing and is left out."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
        text = stream.read().decode("utf-8", errors="replace")
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    lines = [line for line in lines if line.strip()]
    if not lines or not TOLD.match(lines[-1]) or TRACEBACK not in lines:
        return lines, False
    last = len(lines) - 1 - lines[::-1].index(TRACEBACK)
    return lines[:last], True


def _file(folder: Path, task: Task, stopped: list[Stopped]) -> Path | None:
    """The log of the node where a rank stopped first, else of the node that wrote last without
    being told to end, else the supervisor's own; None if none is there and holds something."""
    logs = _of_nodes(folder, task)
    if task.last is not None and stopped:
        wanted = _node_names(task.last, stopped[0].host)
        for name, file in logs.items():
            if name in wanted:
                return file
    files = sorted(logs.values(), key=lambda file: (not _tail(file)[1], file.stat().st_mtime))
    own = folder / f"{task.label}.log"
    files = files or ([own] if own.is_file() and own.stat().st_size else [])
    return files[-1] if files else None


def _of_nodes(folder: Path, task: Task) -> dict[str, Path]:
    """Node -> its log of the last start, without empty ones."""
    if task.last is None or not folder.is_dir():
        return {}
    begin = re.escape(f"{task.label}-{task.last.restart}-")
    return {
        match[1]: file
        for file in folder.iterdir()
        if (match := re.fullmatch(rf"{begin}(.+)\.log", file.name)) and file.stat().st_size
    }


def _node_names(start: StartRecord, host: str) -> set[str]:
    """What a host may be called in the name of its log: its name, or its number in the job."""
    short = host.split(".")[0]
    numbers = {str(i) for i, node in enumerate(start.nodes) if node.split(".")[0] == short}
    return {host, short, *numbers}
