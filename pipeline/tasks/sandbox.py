"""Run a generated program so that it can harm neither the machine nor the score.

Each program gets a new interpreter (pipeline/tasks/sandbox_child.py), in an empty temporary folder
and with an environment of its own (ENVIRONMENT). This interpreter is two processes. The supervisor
reads the program from stdin, isolates the network and the process tree if the system allows it, and
forks. The forked child limits itself and runs the program. Only the supervisor reports to
`run_program`, so nothing that the program prints, forks or leaves behind can reach it.

    run_program  --stdin: limits, program-->  supervisor  --fork-->  program under limits
                 <--stdout: outcome---------              <--pipe: secret, verdict------

The sandbox guards against accidents, not against attackers: the program can read every file that is
readable to all users.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import UserError

CHILD = Path(__file__).with_name("sandbox_child.py")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
"""On a large host, numerical libraries would start a thread per core, and glibc would reserve
64 MiB of address space for each thread: ordinary programs would exceed the limits."""
GRACE_S = 10.0
"""Seconds beyond the program's time limit, since a loaded machine starts interpreters slowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use.

    Raises:
        UserError: a limit is not above 0.
    """

    timeout_s: float = 10.0
    """Wall-clock seconds, for the program and all processes that it starts."""
    cpu_s: int = 10
    """CPU seconds of each process."""
    memory_bytes: int = 1 << 30
    """Address space of each process."""
    file_bytes: int = 16 << 20
    """Size of each file that is written."""
    num_processes: int = 64
    """Processes and threads. Enforced only if each program runs as a user of its own: if the
    scorer runs as root, or in a user namespace of the program's."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise UserError(
                    f"limits.{name}={value}: must be above 0; leave it out for the default"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    passed: bool
    reason: str
    """`passed`, `failed: WHY`, `timeout` or `memory`."""
    duration_s: float
    has_network: bool
    """Whether the program could reach the network, since the system refused to isolate it."""


class SandboxError(Exception):
    """The sandbox itself failed, so whether the program passes is not known."""


def run_program(program: str, limits: Limits) -> Outcome:
    """Run a complete program, which passes if it runs to its end. May be called from threads.

    Raises:
        SandboxError: the sandbox gave no outcome.
    """
    job = json.dumps({"program": program, "limits": asdict(limits)})
    with tempfile.TemporaryDirectory(prefix="score-", ignore_cleanup_errors=True) as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(CHILD)],
                input=job.encode("utf-8", "backslashreplace"),
                capture_output=True,
                timeout=limits.timeout_s + GRACE_S,
                cwd=folder,
                env=ENVIRONMENT,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SandboxError(
                f"the sandbox gave no outcome within {GRACE_S:.0f} s after the program's limit"
            ) from error
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip()[-500:]
        raise SandboxError(f"sandbox process exited with {done.returncode}: {tail}")
    return Outcome(**json.loads(done.stdout))
