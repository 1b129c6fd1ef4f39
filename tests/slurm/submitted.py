"""Jobs that were submitted to the cluster of the tests, and what the tests do to them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm import records
from pipeline.slurm.queue import ENDED
from pipeline.slurm.records import StartRecord
from tests.end_to_end.launcher import environment
from tests.slurm.cluster import PATIENCE_S, Cluster

WORKER, AGENT, NODE = "-u -m tests.slurm.held", "-m torch.distributed.run", "-m jobs.slurm.node"
"""What stands in the command lines of a job's processes."""
SRUN = "srun"
"""Stands for the process on the first node that runs the others."""
ENV = "[OMP_NUM_THREADS,HF_HUB_OFFLINE,CUDA_VISIBLE_DEVICES]"
PYTHON_HELD = """#!/bin/bash
words=()
for word in "$@"; do
    [ "$word" = pipeline.run ] && word=tests.slurm.held
    words+=("$word")
done
exec {python} "${{words[@]}}"
"""
"""Instead of Python on the nodes: the workers are those of tests/slurm/held.py."""


class Submitted:
    """A job of the demo model that works in a folder of its own and writes to `run` there."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        args: Sequence[str],
        *,
        hold: int | None = None,
        pace_s: float = 0.0,
        **slurm: Any,
    ) -> None:
        """`python -m jobs.submit ARGS slurm.FIELD=VALUE`, by default on two nodes without GPUs.

        `hold`: workers wait once so many parts are done (see `let_go`). `pace_s`: they wait so long
        before each part."""
        self.cluster, self.folder = cluster, folder
        self.path = folder / "run"
        self.run = RunFolder(self.path)
        self.args = [*args, "output=run", "shutdown_grace_s=3"]
        held = folder / "python-held"
        held.write_text(PYTHON_HELD.format(python=sys.executable))
        held.chmod(0o755)
        if hold is not None:
            self.hold(hold)
        (folder / "pace").write_text(str(pace_s))
        given = {
            "nodes": 2,
            "gpus_per_node": 0,
            "signal_s": 60,
            "python": held,
            "env": ENV,
            **slurm,
        }
        words = [f"slurm.{name}={value}" for name, value in given.items()]
        command = [sys.executable, "-m", "jobs.submit", *self.args, *words]
        self.said = cluster.run(*command, cwd=folder).stdout
        self.id = records.submissions(self.run)[-1].job_id

    def hold(self, parts: int) -> None:
        """Workers wait once so many parts are done."""
        beside = self.folder / "hold.new"
        beside.write_text(str(parts))
        beside.replace(self.folder / "hold")

    def let_go(self) -> None:
        (self.folder / "hold").unlink()

    def parts(self) -> int:
        return len(self.run.parts_done())

    def starts(self) -> list[StartRecord]:
        return records.starts(self.run, self.id)

    def wait_for_parts(self, num: int) -> None:
        self.wait_until(lambda: self.parts() >= num, f"{num} parts are not done")

    def wait_for_start(self, restart: int) -> None:
        self.wait_until(
            lambda: any(its.restart == restart for its in self.starts()),
            f"start {restart} has not begun",
        )

    def wait_until(self, is_so: Callable[[], bool], otherwise: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, f"{otherwise}\n{self.log()}"
            time.sleep(0.1)

    def end(self, state: str = "COMPLETED") -> list[StartRecord]:
        """Wait until the job has ended, and check how; returns its starts."""
        self.wait_for_state(self.id, state)
        return self.starts()

    def wait_for_state(self, job: int | str, state: str) -> None:
        """Wait until a job or element has ended, and check how."""
        said = lambda: self.cluster.job(str(job))  # noqa: E731
        self.wait_until(lambda: said()["JobState"] in ENDED, f"job {job} has not ended")
        assert said()["JobState"] == state, f"{said()}\n{self.log()}"

    @property
    def finisher_id(self) -> int:
        found = records.submissions(self.run)[-1].finisher_id
        assert found is not None, "no array"
        return found

    def processes(self, node: str, what: str) -> list[int]:
        """The processes of this job on a node whose command line has `what`, parents first."""
        pids = sorted(int(its.name) for its in Path("/proc").iterdir() if its.name.isdigit())
        return [pid for pid in pids if self._is(pid, node, what)]

    def kill(self, node: str, what: str) -> None:
        """kill -9 the first such process."""
        os.kill(self.processes(node, what)[0], signal.SIGKILL)

    def log(self) -> str:
        """What the job and its nodes have printed."""
        logs = sorted((self.path / "slurm" / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()}" for log in logs)

    def _is(self, pid: int, node: str, what: str) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            env = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        mine = (
            f"SLURM_JOB_ID={self.id}",
            f"SLURMD_NODENAME={node}",
            f"SLURM_CONF={self.cluster.folder}/slurm.conf",
        )
        is_srun = words[0] == SRUN  # its command line has that of the node's process in it
        is_wanted = is_srun if what == SRUN else not is_srun and what in " ".join(words[1:])
        return is_wanted and all(its.encode() in env for its in mine)


def set_environment(patch: pytest.MonkeyPatch) -> None:
    """What the jobs of a test take from its environment."""
    for name, value in {**environment(), "CUDA_VISIBLE_DEVICES": ""}.items():
        patch.setenv(name, value)
