"""How is a generated program run without it harming the machine or the score?

Each program gets a fresh interpreter (pipeline/tasks/sandbox_child.py) in a temporary empty folder
with an empty environment. The interpreter's first half, the supervisor, reads the program from
stdin, cuts network and process tree off where the system allows it, and forks; the second half sets
its own limits and runs the program. Only the supervisor speaks to this process, so nothing that a
program prints, forks or leaves behind reaches it.

    run_program --stdin: limits, program--> supervisor --fork--> program under limits
                <-stdout: outcome----------      <--pipe: verdict with a secret--

It guards against accidents, not against an attacker: files that anyone may read can be read.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("sandbox_child.py")
GRACE_S = 10.0
"""What a loaded machine may take to start an interpreter, beyond a program's own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use. `timeout_s` is wall-clock and counts for all its processes."""

    timeout_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 1 << 30
    """Address space of each process."""
    file_bytes: int = 16 << 20
    num_processes: int = 32
    """Processes and threads; holds where each program is a user of its own (root, namespaces)."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(
                    f"limits.{name}={value}: must be above 0; leave it out for default"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    passed: bool
    reason: str
    """passed | failed: what | timeout | memory"""
    duration_s: float
    has_network: bool
    """The system did not allow the network to be cut off."""


class SandboxError(Exception):
    """The sandbox itself is broken: nothing is known about the program."""


def run_program(program: str, limits: Limits) -> Outcome:
    """Run a complete program; it passes when it reaches its end. Safe to call from threads."""
    job = json.dumps({"program": program, "limits": asdict(limits)})
    with tempfile.TemporaryDirectory(prefix="score-", ignore_cleanup_errors=True) as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(CHILD)],
                input=job.encode("utf-8", "backslashreplace"),
                capture_output=True,
                timeout=limits.timeout_s + GRACE_S,
                cwd=folder,
                env={},
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SandboxError(
                f"no outcome {GRACE_S:.0f} s after a program's time limit"
            ) from error
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip()[-500:]
        raise SandboxError(f"sandbox process exited with {done.returncode}: {tail}")
    return Outcome(**json.loads(done.stdout))
