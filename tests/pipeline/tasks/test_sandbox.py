"""The sandbox enforces every limit, and passes only a program that runs to its end."""

import os
import select
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.tasks.sandbox import ENVIRONMENT, Limits, Outcome, run_program

SHORT = Limits(timeout_s=0.5)
GENEROUS_S = 50.0
"""Enough for a busy machine; if a limit is not enforced, a program takes longer: a minute."""


def reason(program: str, limits: Limits | None = None) -> str:
    """The reason of the program's outcome; by default the limits are too generous to matter."""
    outcome = run_program(program, limits or Limits(timeout_s=30.0, cpu_s=30))
    assert outcome.passed == (outcome.reason == "passed")
    return outcome.reason


def test_a_program_that_reaches_its_end_passes() -> None:
    outcome = run_program("assert 1 + 1 == 2", Limits())
    assert outcome.passed
    assert outcome.reason == "passed"
    assert 0 < outcome.duration_s < GENEROUS_S


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("assert 1 == 2", "failed: AssertionError"),
        ("assert 1 == 2, 'not\\nequal'", "failed: AssertionError: not equal"),
        ("x = (", "failed: SyntaxError: '(' was never closed (program.py, line 1)"),
        ("def f(): f()\nf()", "failed: RecursionError: maximum recursion depth exceeded"),
        ("import ctypes; ctypes.string_at(0)", "failed: killed by SIGSEGV"),
        ("raise KeyboardInterrupt", "failed: KeyboardInterrupt"),
        ("class E(Exception):\n def __str__(self): raise E\nraise E", "failed: E"),
    ],
)
def test_the_reason_names_the_error(program: str, expected: str) -> None:
    assert reason(program) == expected


@pytest.mark.parametrize(
    "exit_early",
    ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "exit()"],
)
def test_an_early_exit_does_not_pass(exit_early: str) -> None:
    assert reason(f"{exit_early}\nassert False").startswith("failed: ")


def test_a_verdict_cannot_be_written_without_the_secret() -> None:
    program = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b"passed" * 10)
        os.write(fd, b'{"passed": true, "reason": "passed", "duration_s": 0, "has_network": 0}')
    except OSError:
        pass
print('{"passed": true}')
os._exit(0)
"""
    assert reason(program).startswith("failed: exited with status 0")


def test_only_the_program_itself_can_pass_not_a_process_it_forked() -> None:
    assert reason("import os\nif os.fork(): os._exit(0)").startswith("failed: exited with status 0")


def test_wall_clock_limit() -> None:
    start = time.monotonic()
    assert reason("import time; time.sleep(60)", SHORT) == "timeout"
    assert time.monotonic() - start < GENEROUS_S


def test_cpu_limit() -> None:
    limits = Limits(timeout_s=120, cpu_s=1)
    outcome = run_program("while True: pass", limits)
    assert outcome.reason == "timeout"
    assert outcome.duration_s < 100


def test_an_endless_loop_that_swallows_exceptions_ends() -> None:
    program = "while True:\n try:\n  while True: pass\n except BaseException: pass"
    assert reason(program, SHORT) == "timeout"


def test_memory_limit() -> None:
    limits = Limits(timeout_s=30, memory_bytes=256 << 20)
    assert reason("x = bytearray(100 << 20)", limits) == "passed"
    assert reason("x = bytearray(400 << 20)", limits) == "memory"
    assert reason("x = []\nwhile True: x.append(' ' * 1000)", limits) == "memory"


def test_file_size_limit() -> None:
    limits = Limits(timeout_s=30, file_bytes=1000)
    write = "with open('f', 'wb') as file: file.write(bytes({}))"
    assert reason(write.format(1000), limits) == "passed"
    assert reason(write.format(1001), limits) == "failed: OSError: [Errno 27] File too large"


def test_endless_output_fills_nothing() -> None:
    program = "import sys\nwhile True: print('x' * 100_000); print('y' * 100_000, file=sys.stderr)"
    assert reason(program, SHORT) == "timeout"


@pytest.mark.parametrize("escape", ["", "os.setsid();"])
@pytest.mark.parametrize("then", ["", "os._exit(0)", "time.sleep(60)"])
def test_children_end_with_the_program(tmp_path: Path, escape: str, then: str) -> None:
    """The child keeps a named pipe open as long as it lives. It also holds the program's standard
    streams open, which the sandbox must not wait for."""
    if escape and not is_isolated():
        pytest.skip("only a process-id namespace finds a process that leaves its group")
    tmp_path.chmod(0o777)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").chmod(0o666)
    program = f"""
import os, time
is_up, says_up = os.pipe()
if os.fork() == 0:
    {escape}
    pipe = os.open({str(tmp_path / "pipe")!r}, os.O_WRONLY)
    os.write(pipe, b"up")
    os.write(says_up, b"up")
    time.sleep(600)
os.read(is_up, 2)
{then}
"""
    with open(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb") as pipe:
        start = time.monotonic()
        run_program(program, Limits(timeout_s=2.0 if "sleep" in then else 30.0))
        assert time.monotonic() - start < GENEROUS_S
        assert pipe.read(2) == b"up"
        hung_up = select.poll()
        hung_up.register(pipe, 0)
        assert hung_up.poll(1000 * GENEROUS_S), "the child is alive"


def is_isolated() -> bool:
    return not run_program("", Limits()).has_network


def test_a_fork_bomb_is_stopped() -> None:
    if not is_isolated() and os.getuid() != 0:
        pytest.skip("the number of processes is limited only if the program has its own user")
    program = "import os\nwhile True:\n os.fork()"
    assert "Resource temporarily unavailable" in reason(program) or reason(program) == "timeout"


def test_no_network() -> None:
    if not is_isolated():
        pytest.skip("this system does not allow isolating the network")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)"
        assert reason(program).startswith("failed: OSError")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_root_is_not_root_inside(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("not root")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    mine.chmod(0o644)
    assert reason(f"open({str(mine)!r}, 'w')").startswith("failed: PermissionError")
    assert mine.read_text() == "mine"


def test_the_surroundings_are_empty() -> None:
    program = """
import os, sys
assert os.listdir() == [], os.listdir()
left = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
assert left == ENVIRONMENT, left
assert sys.stdin.read() == ""
open("scratch", "w").write("allowed")
"""
    assert reason(program.replace("ENVIRONMENT", repr(ENVIRONMENT))) == "passed"


def test_there_is_no_input() -> None:
    assert reason("input()") == "failed: EOFError: EOF when reading a line"


@pytest.mark.parametrize(
    "program",
    [
        "assert __name__ != '__main__'",
        "if __name__ == '__main__': raise SystemExit(1)",
        "import sys\nassert sys.modules[__name__].__dict__ is globals()",
        "from dataclasses import dataclass, field\n@dataclass(frozen=True, slots=True)\nclass A:\n"
        "    x: int = 1\n    y: list = field(default_factory=list)\nassert A() == A(1, [])",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\n"
        "class A:\n    other: A | None = None\nassert A(A()).other == A()",
        "import pickle\nclass A: pass\nassert type(pickle.loads(pickle.dumps(A()))) is A",
        "import typing\nclass B:\n    x: 'A'\nclass A: pass\n"
        "assert typing.get_type_hints(B) == {'x': A}",
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\nassert P(1).x == 1",
        "import enum\nE = enum.Enum('E', 'a b')\nimport copy\nassert copy.deepcopy(E.a) is E.a",
    ],
)
def test_the_program_is_a_module_but_not_main(program: str) -> None:
    assert reason(program) == "passed"


NUMPY = """
import numpy, os
a = numpy.random.default_rng(0).random((300, 300))
assert numpy.allclose(numpy.linalg.inv(a) @ a, numpy.eye(300))
"""
ONE_THREAD = "assert len(os.listdir('/proc/self/task')) == 1, os.listdir('/proc/self/task')\n"
FOUR_PROCESSES = """
import multiprocessing
def square(x): return x * x
with multiprocessing.get_context("fork").Pool({}) as pool:
    assert pool.map(square, range(100)) == [x * x for x in range(100)]
"""
SIXTEEN_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
meeting = threading.Barrier(16)
def allocate(i):
    meeting.wait()
    return len([bytes(1000) for _ in range(1000)])
with ThreadPoolExecutor(16) as pool:
    assert list(pool.map(allocate, range(16))) == [1000] * 16
"""


@pytest.mark.parametrize(
    "program",
    [
        NUMPY,
        FOUR_PROCESSES.format(4),
        # As many processes as there are CPUs.
        FOUR_PROCESSES.format(""),
        SIXTEEN_THREADS,
        NUMPY + FOUR_PROCESSES.format(4) + SIXTEEN_THREADS,
    ],
)
def test_ordinary_programs_meet_the_default_limits(program: str) -> None:
    assert reason(program, replace(Limits(), timeout_s=60.0, cpu_s=60)) == "passed"


def test_what_a_program_takes_depends_on_no_host() -> None:
    """Threads of BLAS, memory for threads, and the number of CPUs."""
    program = f"{NUMPY}{ONE_THREAD if sys.platform == 'linux' else ''}"
    program += "import threading\nassert (os.cpu_count(), threading.stack_size()) == (4, 8 << 20)\n"
    program += (
        "def peak():\n"
        "    with open('/proc/self/status') as f:\n"
        "        return int(f.read().split('VmPeak:')[1].split()[0])\n"
        "before = peak()\n"
        f"{SIXTEEN_THREADS}"
        "assert peak() - before < 400 << 10, (before, peak())\n"
        if sys.platform == "linux"
        else ""
    )
    assert reason(program) == "passed"


def test_the_folder_is_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert reason("import os; os.makedirs('a/b'); open('a/b/c', 'w').close()") == "passed"
    assert list(tmp_path.iterdir()) == []


def test_odd_characters_reach_the_program() -> None:
    assert reason("assert len('ü\u2028\U0001f600') == 3") == "passed"
    assert reason("x = 'half \ud800'").startswith(("passed", "failed: "))
    assert reason("x = '\0'").startswith("failed: ")


def test_programs_run_from_threads() -> None:
    def one(number: int) -> Outcome:
        return run_program(f"assert {number} % 2 == 0", Limits(timeout_s=30))

    with ThreadPoolExecutor(4) as executor:
        outcomes = list(executor.map(one, range(12)))
    assert [outcome.passed for outcome in outcomes] == [n % 2 == 0 for n in range(12)]


@pytest.mark.parametrize("field", ["timeout_s", "cpu_s", "memory_bytes", "num_processes"])
def test_limits_check_themselves(field: str) -> None:
    with pytest.raises(ValueError, match=f"limits.{field}=0: must be above 0"):
        Limits(**{field: 0})
