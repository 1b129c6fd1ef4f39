"""Hostile answers: each is judged, and the scorer and its host are as they were before."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.tasks import TASKS
from pipeline.tasks.base import Task, Verdict
from pipeline.tasks.judges import Judge, JudgeError
from pipeline.tasks.sandbox import Limits, run_program
from pipeline.tasks.trials import run_all
from tests.pipeline.tasks.published_rows import HUMANEVAL, LIVECODEBENCH, judged_rows

KILLS = [
    "os.kill(os.getpid(), 9)",
    "os.kill(os.getppid(), 9)",
    "os.killpg(os.getpgrp(), 9)",
    "os.killpg(os.getpgid(os.getppid()), 9)",
    "os.kill(0, 9)",
    "os.kill(1, 9); os.kill(1, 15); raise SystemExit",
]
KILLS_ALL = "os.kill(-1, 9); raise SystemExit"
"""Without a namespace or a user of its own, this kills all processes of the user."""
HOSTILE = {
    "flood": "while True: print('x' * 1_000_000); print('y' * 1_000_000, file=sys.stderr)",
    "flood of files": "for i in range(10**6): open(f'{i % 50}', 'w').write('x' * 10**8)",
    "forks": "while True: os.fork()",
    "daemon": "os.fork() or (os.setsid(), os.fork() or time.sleep(600)); time.sleep(600)",
    "exit": "sys.exit(0)",
    "exit at once": "os._exit(0)",
    "exit in a thread": "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(60)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)",
    "deep recursion": "sys.setrecursionlimit(10**9); f = lambda n: f(n + 1); f(0)",
    "deep in C": "exec('x = ' + '[' * 100_000)",
    "memory": "x = [0]\nwhile True: x += x",
    "signals ignored": "[signal.signal(s, signal.SIG_IGN) for s in (2, 14, 15)]\nwhile True: pass",
    "no builtins": "__builtins__.clear() if isinstance(__builtins__, dict) else None; 1 / 0",
    "pickle": "pickle.loads(b'cos\\n_exit\\n(I0\\ntR.')",
    "stdin closed": "os.close(0); os.close(1); os.close(2); input()",
    "all closed": "os.closerange(0, 1000); raise ValueError",
    **{kill: kill for kill in KILLS},
}
TOO_LONG = {
    *("stopped", "daemon", "exit in a thread", "signals ignored", "flood of files"),
    *("memory", "deep recursion"),
}
"""As scripts these take 6 s, or 4 GiB. As functions, with less of both, they show that they end."""
IMPORTS = "import os, pickle, signal, sys, threading, time\n"
SHORT = Limits(timeout_s=2.0, cpu_s=2)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process beside the scorer, in its group, that outlives the test; and a folder for temporary
    files that is empty again."""
    folder = tmp_path / "temporary"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(folder))
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield
        assert bystander.poll() is None, "a program killed a process of the scorer's group"
        assert list(folder.iterdir()) == []
    finally:
        bystander.kill()
        bystander.wait()


def judged(task: str, rows: list[Any], texts: list[str], limits: Limits = SHORT) -> list[Any]:
    return run_all(judged_rows(rows, texts), TASKS[task], limits, 2)[0]


def hostiles() -> dict[str, str]:
    is_safe = os.getuid() == 0 or not run_program("", Limits()).has_network
    return HOSTILE | ({"kill all": KILLS_ALL} if is_safe else {})


def test_hostile_functions_fail_and_their_neighbours_pass(watched: None) -> None:
    """They return nothing after all, so that what has no effect fails too."""
    right = HUMANEVAL.rows[0]["canonical_solution"]
    texts, expected = [], []
    for its in hostiles().values():
        inside = textwrap.indent(IMPORTS + its, "    ")
        texts += [f"```python\ndef double(x):\n{inside}\n    return None\n```", right]
        expected += [False, True]
    scores = judged("humaneval", HUMANEVAL.rows * len(texts), texts)
    assert [score["passed"] for score in scores] == expected, [s["reason"] for s in scores]


def test_hostile_scripts_fail_and_their_neighbours_pass(watched: None) -> None:
    right = LIVECODEBENCH.right[0][0]
    texts, expected = [], []
    for name, its in hostiles().items():
        if name in TOO_LONG:
            continue
        texts += [f"```python\n{IMPORTS}{its}\n```", right]
        expected += [False, True]
    scores = judged("livecodebench", LIVECODEBENCH.rows[:1] * len(texts), texts)
    assert [score["passed"] for score in scores] == expected, [s["reason"] for s in scores]


def test_a_script_s_time_limit_is_that_of_each_test(watched: None) -> None:
    text = "```python\nimport time\ntime.sleep(600)\n```"
    (score,) = judged("livecodebench", LIVECODEBENCH.rows[:1], [text])
    assert score["reason"] == "failed: TimeLimitExceeded: test 1 of 3"
    assert 6 <= score["duration_s"] < 30


BENIGN = {
    "a main guard": "import sys\n\ndef double(x):\n    return 2 * x\n\n"
    "if __name__ == '__main__':\n    sys.exit(1)",
    "40 threads": "def double(x):\n    import threading\n    gate = threading.Barrier(40)\n"
    "    threads = [threading.Thread(target=gate.wait) for _ in range(40)]\n"
    "    [thread.start() for thread in threads]\n    [thread.join() for thread in threads]\n"
    "    return 2 * x",
    "recursion 50,000 deep": "import sys\nsys.setrecursionlimit(100_000)\n\n"
    "def double(x, n=50_000):\n    return double(x, n - 1) if n else 2 * x",
    "a pickle": "import pickle\n\nclass A:\n    x = 2\n\ndef double(x):\n"
    "    return pickle.loads(pickle.dumps(A())).x * x",
}


def test_what_only_looks_hostile_passes(watched: None) -> None:
    texts = [f"```python\n{code}\n```" for code in BENIGN.values()]
    limits = Limits(timeout_s=60.0, cpu_s=60)
    scores = judged("humaneval", HUMANEVAL.rows * len(texts), texts, limits)
    assert {name: its["reason"] for name, its in zip(BENIGN, scores, strict=True)} == dict.fromkeys(
        BENIGN, "passed"
    )


# --- the process that judges ---


def hang(row: Any, text: str) -> Verdict:
    while text == "hang":
        pass
    if text == "die":
        os.kill(os.getpid(), 9)
    if text == "bug":
        raise RuntimeError("a fault of the task")
    if text == "large":
        return Verdict(bool(bytearray(8 << 30)), "passed")
    if text == "loud":
        print("what a checker prints" * 100_000)
    return Verdict(bool(text), "passed" if text else "failed: nothing")


TASK = Task(columns=(), verdict=hang)


def row(text: str) -> dict[str, Any]:
    return {"row_id": "a", "sample_index": 0, "text": text, "error": None}


def test_a_judge_that_hangs_or_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tasks.judges.READING_S", 0.0)
    monkeypatch.setattr("pipeline.tasks.judges.GRACE_S", 3.0)
    judge = Judge(TASK, Limits(timeout_s=3.0))
    texts = ["good", "hang", "good", "die", "loud", "large", "good"]
    found = [judge.judge(row(text)) for text in texts]
    judge.close()
    assert [its.reason for its in found] == [
        "passed",
        "timeout",
        "passed",
        "failed: its judge was killed by SIGKILL",
        "passed",
        "memory",
        "passed",
    ]


def test_a_fault_of_the_task_stops_the_scoring() -> None:
    with pytest.raises(JudgeError, match="RuntimeError: a fault of the task"):
        run_all([row("good"), row("bug")], TASK, Limits(), 1)
