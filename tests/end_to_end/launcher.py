"""Start jobs as a user does: torchrun with a command line, in some working folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
HELD = "tests.end_to_end.held"
"""The module to start instead of pipeline.run if the job is to wait in its middle."""
PATIENCE_S = 900
"""Far longer than any job of these tests takes, even on a machine that is busy with other things:
a test that waits this long waits for something that does not happen."""


def environment() -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own}


def start(
    args: Sequence[str],
    cwd: Path,
    *,
    launcher: Sequence[str] = (),
    num_workers: int = 2,
    module: str = "pipeline.run",
) -> subprocess.Popen[str]:
    """`torchrun --nproc-per-node=2 -m pipeline.run ARGS` in `cwd`, with stderr in stdout."""
    command = [*TORCHRUN, f"--nproc-per-node={num_workers}", *launcher, "-m", module, *args]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(args: Sequence[str], cwd: Path, code: int = 0, **how: Any) -> str:
    """Run a job, check its exit code, and return what it printed; `how` goes to `start`."""
    process = start(args, cwd, **how)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, said
    return said


def told_once(said: str) -> str:
    """The message in the job's only line that says why it stopped. Under torchrun it stands in
    torchrun's own last words."""
    lines = [line for line in said.splitlines() if "pipeline.run stopped: " in line]
    assert len(lines) == 1, said
    assert "/pipeline/" not in said, "a traceback through our code"
    return lines[0].split("pipeline.run stopped: ")[1]


def kill_a_worker(launcher: subprocess.Popen[str], run: Path, after_parts: int) -> None:
    """kill -9 the worker that was started last, once this many parts are done."""
    wait_for_parts(launcher, run, after_parts)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def wait_for_parts(process: subprocess.Popen[str], run: Path, num_parts: int) -> None:
    """Return once at least this many parts are done."""
    wait_until(process, lambda: len(list((run / "data").glob("*.parquet"))) >= num_parts)


def wait_until(process: subprocess.Popen[str], is_so: Callable[[], bool]) -> None:
    """Return once a job that is running has got so far."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "the job hangs"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
