"""Jobs that were submitted to the cluster of the tests, and what the tests do to them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.slurm import SlurmConfig
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm import records
from pipeline.slurm.queue import ENDED
from pipeline.slurm.records import StartRecord, Submission
from tests.slurm.cluster import ROOT, Cluster

WORKER, AGENT, NODE = "-u -m tests.slurm.held", "-m torch.distributed.run", "-m jobs.slurm.node"
"""What stands in the command lines of a job's processes."""
SRUN = "srun"
"""Stands for the process on the first node that runs the others."""
PATIENCE_S = 240.0
"""Far longer than any job of these tests takes, even on a busy machine."""
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
        options: Sequence[str] = (),
        task: str | None = None,
        **slurm: Any,
    ) -> None:
        """`hold`: workers wait once so many parts are done (see `let_go`). `pace_s`: they wait so
        long before each part. `options`: further ones of sbatch."""
        self.cluster, self.folder = cluster, folder
        self.path = folder / "run"
        self.run = RunFolder(self.path)
        self.args = [*args, f"output={folder / 'run'}", "shutdown_grace_s=3"]
        held = folder / "python-held"
        held.write_text(PYTHON_HELD.format(python=sys.executable))
        held.chmod(0o755)
        if hold is not None:
            self.hold(hold)
        (folder / "pace").write_text(str(pace_s))
        given = {"nodes": 2, "gpus_per_node": 0, "signal_s": 60, "python": str(held), **slurm}
        self.config = SlurmConfig(**given)
        self.id = self._submit(options, task)

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
        return "\n".join(f"== {log.name}\n{log.read_text()[-6000:]}" for log in logs)

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

    def _submit(self, options: Sequence[str], task: str | None) -> int:
        place, config = self.path / "slurm", self.config
        (place / "logs").mkdir(parents=True)
        words = " ".join(f"'{word}'" for word in self.args)
        log = "%A_%a" if config.array else "%j"
        array = [f"--array=0-{config.array - 1}"] if config.array else []
        nodes = [f"--nodes={config.nodes}", "--ntasks-per-node=1"]
        job = int(self._sbatch(log, [*nodes, *array, *options], f"-- {words}"))
        finisher = None
        if config.array:
            behind = ["--nodes=1", f"--dependency=afterany:{job}"]
            finisher = int(self._sbatch("%j", behind, "--finish"))
        submission = Submission(
            job_id=job,
            array=config.array,
            finisher_id=finisher,
            submitted_at="2026-01-01T00:00:00+00:00",
            submitted_from="here",
            user="me",
            command="python -m jobs.submit",
            working_folder=str(self.folder),
            folder=str(place),
            slurm=asdict(config),
            task=task,
        )
        records.write_submission(self.run, submission)
        for held in submission.ids:
            self.cluster.run("scontrol", "release", str(held))
        return job

    def _sbatch(self, log: str, options: Sequence[str], words: str) -> str:
        place = self.path / "slurm"
        script = place / "script.sh"
        script.write_text(f"""#!/bin/bash
#SBATCH --hold --requeue --open-mode=append --output={place}/logs/{log}.log
#SBATCH --signal=B:USR1@{self.config.signal_s}
trap '' USR1
exec {sys.executable} -m jobs.slurm.supervise {self.path} {words}
""")
        return self.cluster.submit(*options, script, cwd=self.folder)


def set_environment(patch: pytest.MonkeyPatch) -> None:
    """What jobs take from the environment of the test that submits them."""
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    for name, value in own.items():
        patch.setenv(name, value)
