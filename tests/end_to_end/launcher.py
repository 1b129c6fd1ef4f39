"""Starts jobs as a person does: torchrun, a command line, some working folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def start(args: Sequence[str], cwd: Path, *, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    """`torchrun --nproc-per-node=2 -m pipeline.run ARGS` in `cwd`; all that it prints is stdout."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [*TORCHRUN, "--nproc-per-node=2", *launcher, "-m", "pipeline.run", *args]
    return subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(args: Sequence[str], cwd: Path, code: int = 0) -> str:
    """What a job prints that ends with this exit code."""
    process = start(args, cwd)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def kill_a_worker(launcher: subprocess.Popen[str], run: Path, after_parts: int) -> None:
    """kill -9 of the last worker started, once this many parts are done."""
    end = time.monotonic() + 120
    while len(list((run / "data").glob("*.parquet"))) < after_parts:
        assert time.monotonic() < end, "no part is done"
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.01)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
