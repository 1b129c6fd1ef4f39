"""Scoring judges as many rows at once as it has workers, in processes, and says how far it is."""

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.stats import counting
from pipeline.stats.counting import CountingLine
from pipeline.tasks.base import Task, Verdict
from pipeline.tasks.sandbox import Limits
from pipeline.tasks.trials import run_all


def meet(row: Any, text: str) -> Verdict:
    """Passes if another row is judged at the same time, in another process."""
    folder, name = Path(row["folder"]), str(os.getpid())
    (folder / name).touch()
    end = time.monotonic() + 50
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return Verdict(len(list(folder.iterdir())) == 2, "passed")


def test_rows_are_judged_in_as_many_processes_as_there_are_workers(tmp_path: Path) -> None:
    task = Task(columns=("folder",), verdict=meet)
    row = {"sample_index": 0, "text": "x", "error": None, "folder": str(tmp_path)}
    done: list[int] = []
    rows = [{**row, "row_id": str(i)} for i in range(20)]
    scores, _ = run_all(rows, task, Limits(timeout_s=60.0), 2, done.append)
    assert all(score["passed"] for score in scores)
    assert [score["row_id"] for score in scores] == [row["row_id"] for row in rows]
    assert done == list(range(1, 21))
    assert str(os.getpid()) not in {file.name for file in tmp_path.iterdir()}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_line_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    now = [0.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: now[0])
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with CountingLine("scoring", "generations", 1640, 8) as line:
        for done in range(1, 1641):
            now[0] += 0.0625
            line.show(done)
    lines = stream.getvalue().replace("\x1b[K", "").replace("\r", "\n").strip().split("\n")
    assert lines[0].startswith("scoring: 16 of" if is_terminal else "scoring: 240 of 1,640 gener")
    assert len(lines) == (103 if is_terminal else 7)
    assert "16.0/s, 8 at a time" in lines[0]
    assert (
        lines[-1] == "scoring: 1,640 of 1,640 generations (100%), 16.0/s, 8 at a time, 0.00 s left"
    )


def test_what_takes_no_time_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with CountingLine("scoring", "generations", 1, 1) as line:
        line.show(1)
    assert capsys.readouterr().err == ""
