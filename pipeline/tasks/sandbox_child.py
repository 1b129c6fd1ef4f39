"""The process that runs one program under limits; pipeline/tasks/sandbox.py explains the design.

It is started as `python -I sandbox_child.py`, so it can import only the standard library.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import select
import signal
import sys
import threading
import time
import types
from typing import Any, NoReturn

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
FIRST_UID = 1 << 20
"""If the scorer runs as root, each program runs as a user of its own: this id + the process id."""
OVERFLOW_UID = 65534
"""The user id inside a user namespace without an id map. Such a namespace counts its processes
apart from all others, so the limit on their number can be set."""
MAX_REASON_CHARS = 300
MODULE = "candidate"
"""The name of the module that the program is. Not `__main__`: what a program does when it is
started, such as reading its input, is no part of the answer."""
NUM_CPUS = 4
"""The number of CPUs that the program is told, on any host. Pools start as many processes: on a
large host they would exceed the limit on their number."""
THREAD_STACK_BYTES = 8 << 20
"""By default it is the host's `ulimit -s`; it counts as memory of the program."""
PR_SET_KEEPCAPS, CAPABILITY_VERSION_3, CAP_DAC_READ_SEARCH = 8, 0x20080522, 1 << 2


def main() -> None:
    job = json.load(sys.stdin.buffer)
    limits = job["limits"]
    is_isolated = isolate()
    # The program is not given the secret, so if it exits early it cannot write a valid verdict.
    secret = os.urandom(16)
    uid = FIRST_UID + os.getpid()
    verdict_r, verdict_w = os.pipe()
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.close(verdict_r)
        os.setsid()
        run(job["program"], limits, uid, verdict_w, secret)
    os.close(verdict_w)
    status, cpu_s = wait(pid, limits["timeout_s"])
    duration_s = time.perf_counter() - start
    # The kernel enforces the limit by counting ticks. On a busy machine that is a rough estimate: a
    # process that it killed may have had much less CPU time than the limit.
    is_out_of_cpu = status == -signal.SIGKILL and cpu_s > 0.5 * limits["cpu_s"]
    reason = judge(read_now(verdict_r), secret, status, is_out_of_cpu)
    outcome = {
        "passed": reason == "passed",
        "reason": reason,
        "duration_s": duration_s,
        "has_network": not is_isolated,
    }
    print(json.dumps(outcome))


def isolate() -> bool:
    """Give the child new network and process-id namespaces; return whether the system allows it."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    flags = CLONE_NEWNET | CLONE_NEWPID
    return bool(libc.unshare(flags) == 0 or libc.unshare(flags | CLONE_NEWUSER) == 0)


def wait(pid: int, timeout_s: float) -> tuple[int | None, float]:
    """Wait for the child at most `timeout_s`, then kill what is left of its processes.

    Returns its exit code (negative: killed by that signal; None: out of time) and its CPU seconds.
    """

    def on_alarm(signum: int, frame: Any) -> NoReturn:
        raise TimeoutError

    signal.signal(signal.SIGALRM, on_alarm)
    is_late = False
    try:
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except TimeoutError:
        is_late = True
    signal.setitimer(signal.ITIMER_REAL, 0)
    # The child is not reaped yet, so its process id cannot belong to another process. In a
    # process-id namespace, the child is process 1 and all its descendants end with it; otherwise
    # only the descendants that are still in its process group end.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    cpu_s = usage.ru_utime + usage.ru_stime
    return (None if is_late else os.waitstatus_to_exitcode(status)), cpu_s


def read_now(fd: int) -> bytes:
    """What is in the pipe now. Reading to its end could block: a descendant of the program that
    survived may hold it open."""
    readable, _, _ = select.select([fd], [], [], 0)
    return os.read(fd, 65536) if readable else b""


def judge(verdict: bytes, secret: bytes, status: int | None, is_out_of_cpu: bool) -> str:
    """The reason of the outcome (sandbox.Outcome)."""
    if status is None:
        return "timeout"
    if secret in verdict:
        return verdict.split(secret, 1)[1].decode(errors="replace")
    if is_out_of_cpu or status == -signal.SIGXCPU:
        return "timeout"
    if status < 0:
        return f"failed: killed by {signal.Signals(-status).name}"
    return f"failed: exited with status {status} before its tests were done"


def run(program: str, limits: dict[str, Any], uid: int, verdict_fd: int, secret: bytes) -> NoReturn:
    """Run the program in the forked child; then end the process, whatever the program did."""
    reason = "failed: the sandbox could not set its limits"
    home = os.getpid()
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        enter_limits(limits, uid)
        hide_host()
        reason = outcome_of(program)
    finally:
        if os.getpid() == home:  # otherwise this is a process that the program forked
            os.write(verdict_fd, secret + reason.encode("utf-8", "replace"))
        os._exit(0)


def outcome_of(program: str) -> str:
    """Execute the program as a module that is imported, which is what dataclasses, pickle and
    typing.get_type_hints look for; return the reason of its outcome."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    try:
        exec(compile(program, "program.py", "exec"), vars(module))
    except MemoryError:
        return "memory"
    except BaseException as error:  # noqa: BLE001 also SystemExit and KeyboardInterrupt
        return f"failed: {describe(error)}"
    return "passed"


def describe(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 __str__ may be the program's
        text = ""
    return f"{name}: {text}"[:MAX_REASON_CHARS] if text else name


def enter_limits(limits: dict[str, Any], uid: int) -> None:
    has_own_user = drop_root(uid) or os.getuid() == OVERFLOW_UID
    cpu_s = math.ceil(limits["cpu_s"])
    pairs = [
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ]
    if has_own_user:
        pairs.append((resource.RLIMIT_NPROC, limits["num_processes"]))
    for kind, value in pairs:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def hide_host() -> None:
    """Make the numbers that a program takes from its host the same on every host."""
    threading.stack_size(THREAD_STACK_BYTES)
    for name in ("cpu_count", "process_cpu_count"):  # the second since Python 3.13
        if hasattr(os, name):
            setattr(os, name, lambda: NUM_CPUS)


def drop_root(uid: int) -> bool:
    """If this process is root, become user `uid`, which owns nothing else. Returns whether it did.

    If only root can read the Python installation, the right to read every file is kept.
    """
    if os.getuid() != 0:
        return False
    libc = ctypes.CDLL(None)
    try:
        os.chown(".", uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.seteuid(uid)
        can_import = os.access(os.__file__, os.R_OK, effective_ids=True)
        os.seteuid(0)
        if not can_import:
            libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setresuid(uid, uid, uid)
    except OSError:  # in a user namespace without this user id, where root is not the real root
        return False
    if not can_import:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(CAP_DAC_READ_SEARCH, CAP_DAC_READ_SEARCH, 0, 0, 0, 0)
        return bool(libc.capset(header, sets) == 0)
    return True


if __name__ == "__main__":
    main()
