"""Runs LiveCodeBench's tests on one answer, inside of the sandbox.

The text of this file, with a call of run_tests behind it, is the program that the sandbox runs; so
it imports the standard library only. Every test runs the answer anew, in a process of its own that
is killed after TEST_S, and the first that fails ends the program with an error.

A test with a function calls it with arguments that are JSON and compares what it returns. Another
test runs the answer as a script, with the test's input as stdin, and compares what it prints: line
by line, without spaces at the ends, and numbers by value.
"""

import contextlib
import decimal
import io
import json
import os
import signal
import sys
import tempfile
import time
from types import CodeType
from typing import Any, NoReturn

TEST_S = 6.0
"""Seconds for each test, which is LiveCodeBench's limit."""
# fmt: off
MODULES = [
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
    "statistics", "itertools", "functools", "operator", "io", "sys", "json",
]
# fmt: on
"""LiveCodeBench gives answers all names of these modules, in this order, and of builtins and
typing; and then the modules themselves."""
DONE = b"done"


class WrongAnswer(Exception):
    pass


class TimeLimitExceeded(Exception):
    pass


class RuntimeFailure(Exception):
    pass


def run_tests(code: str, tests: list[dict[str, str]], function: str | None) -> None:
    """
    Raises:
        WrongAnswer, TimeLimitExceeded, RuntimeFailure: of the first test that fails.
        SyntaxError: the answer is no Python.
    """
    compiled = compile(code, "answer.py", "exec")
    given: dict[str, Any] = {}
    lines = [f"from {name} import *" for name in (*MODULES, "builtins", "typing")]
    lines += [f"import {name}" for name in MODULES]
    exec("\n".join(lines), given)
    sys.setrecursionlimit(50_000)
    for i, test in enumerate(tests):
        where = f"test {i + 1} of {len(tests)}"
        with tempfile.TemporaryFile(dir=".") as output:
            if function is None:
                _run(compiled, given, test, output, where)
                output.seek(0)
                if not same_output(output.read().decode(errors="replace"), test["output"]):
                    raise WrongAnswer(where)
            else:
                _call(compiled, given, test, function, where)


def same_output(answer: str, expected: str) -> bool:
    ours, theirs = _lines(answer), _lines(expected)
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    try:
        return [decimal.Decimal(its) for its in ours.split()] == [
            decimal.Decimal(its) for its in theirs.split()
        ]
    except decimal.InvalidOperation:
        return False


def _run(
    compiled: CodeType, given: dict[str, Any], test: dict[str, str], output: Any, where: str
) -> None:
    """Run the answer as a script; what it prints goes to `output`."""

    def run() -> bytes:
        with tempfile.TemporaryFile(dir=".") as file:
            file.write(test["input"].encode())
            file.seek(0)
            os.dup2(file.fileno(), 0)
        os.dup2(output.fileno(), 1)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)))
        with contextlib.suppress(SystemExit):  # a script may end so, having printed its answer
            exec(compiled, {**given, "__name__": "__main__"})
        sys.stdout.flush()
        return DONE

    if _in_a_process(run, where) != DONE:
        raise WrongAnswer(where)


def _call(
    compiled: CodeType, given: dict[str, Any], test: dict[str, str], function: str, where: str
) -> None:
    """Call the answer's function, of its class Solution if there is one."""
    arguments = [json.loads(line) for line in test["input"].split("\n")]
    expected = json.loads(test["output"])
    secret = os.urandom(16)

    def run() -> bytes:
        names = {**given, "__name__": "answer"}
        exec(compiled, names)
        found = names["Solution"]() if "Solution" in names else None
        result = (names[function] if found is None else getattr(found, function))(*arguments)
        result = list(result) if isinstance(result, tuple) else result
        return secret if result == expected else b"wrong"

    if _in_a_process(run, where) != secret:
        raise WrongAnswer(where)


def _in_a_process(run: Any, where: str) -> bytes:
    """What `run` returns in a process of its own; b"" if it ends before it returns."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setsid()
        _report(run, writing)
    os.close(writing)
    status = _wait(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _reap()
    os.set_blocking(reading, False)
    try:
        reply = os.read(reading, 65536)
    except BlockingIOError:  # what the answer forked holds it open
        reply = b""
    finally:
        os.close(reading)
    if status is None:
        raise TimeLimitExceeded(where)
    if reply.startswith(b"error"):
        raise RuntimeFailure(f"{where}: {reply[5:].decode(errors='replace')}")
    if status < 0:
        raise RuntimeFailure(f"{where}: killed by {signal.Signals(-status).name}")
    return reply or DONE  # it left with os._exit: what it printed counts, what it called does not


def _reap() -> None:
    """Forget processes that the answer left behind and that have ended. They come to this one if it
    is the first of its namespace, and count towards the limit."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _report(run: Any, writing: int) -> NoReturn:
    me = os.getpid()
    reply = b""
    try:
        reply = run()
    except BaseException as error:  # noqa: BLE001 whatever the answer raises
        reply = f"error{type(error).__name__}: {str(error)[:200]}".encode(errors="replace")
    finally:
        if os.getpid() == me:  # otherwise this is a process that the answer forked
            os.write(writing, reply)
        os._exit(0)


def _wait(pid: int) -> int | None:
    """The exit code of the process (negative: killed by that signal); None: out of time."""
    end, pause = time.monotonic() + TEST_S, 0.0005
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(pause)
        pause = min(0.02, 1.5 * pause)
