"""A real Slurm on this host, for tests: some nodes, partitions `main` and `high`, a few seconds.

Everything lies in a temporary folder and listens on ports of its own, so several clusters run side
by side, and beside one of a user's. `high` preempts what runs in `main`, which is requeued.

    with Cluster(Settings(nodes=2)) as cluster:
        job = cluster.submit("job.sh")
        cluster.wait(job, until="COMPLETED")
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.slurm.configuration import Settings, epilog, gres_conf, slurm_conf

ROOT = Path(__file__).resolve().parent.parent.parent
BINARIES = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
START_S = 60.0
"""Far longer than a start takes (a second)."""
PATIENCE_S = 600.0
"""How long a test waits for what takes seconds, or a minute or two on a slow, busy machine."""

Job = dict[str, str]
"""What `scontrol show job` says of a job, by its names: JobState, Reason, Restarts, NodeList..."""


def missing_binaries() -> list[str]:
    """The programs of Slurm that this host lacks."""
    return [name for name in BINARIES if not program(name)]


def program(name: str) -> str | None:
    """Where a program lies; daemons lie where a user's PATH often does not lead."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Cluster:
    """A Slurm that runs from `start` (or entering `with`) to `stop`, or to this process's end."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.nodes = [f"node{i + 1}" for i in range(self.settings.nodes)]
        # Not pytest's folder: a socket's path may have a hundred characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when all nodes are idle.

        Raises:
            RuntimeError: they are not after a minute; with the daemons' logs.
        """
        self._write_files()
        with (self.folder / "daemons.log").open("w") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.slurm.keeper", str(self.folder)],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C stops the tests, and the tests the cluster
            )
        try:
            self._start_munged()
            self._start("slurmctld", "-D")
            for node in self.nodes:
                self._start("slurmd", "-D", "-N", node)
            self._until(self._all_idle, "the nodes are not idle")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill everything that runs in the cluster and remove its folder."""
        if self._keeper:
            assert self._keeper.stdin
            self._keeper.stdin.close()
            self._keeper.wait(timeout=START_S)
            self._keeper = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """The environment in which a command speaks with this cluster and no other."""
        others = re.compile(r"SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SCONTROL|SCANCEL|MUNGE")
        kept = {name: value for name, value in os.environ.items() if not others.match(name)}
        return {**kept, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(
        self, *command: str | Path, code: int | None = 0, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm's, with its output and errors in `stdout` and `stderr`.

        Raises:
            AssertionError: it ended with another code than `code`, if that is one.
        """
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=self.environment(),
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        assert code is None or done.returncode == code, (command, done)
        return done

    def submit(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """`sbatch ARGUMENTS`; the job's number."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd).stdout.strip().split(";")[0]

    def job(self, number: str) -> Job:
        """What Slurm knows of a job or of one element (`7_2`) of an array.

        Raises:
            KeyError: Slurm knows no such job, or has forgotten it.
        """
        jobs = self.jobs(number)
        if len(jobs) != 1:
            raise KeyError(f"{number} stands for {len(jobs)} jobs")
        return jobs[0]

    def jobs(self, number: str) -> list[Job]:
        """A job, or all elements of an array that have been started, and the rest as one."""
        said = self.run("scontrol", "--oneliner", "show", "job", number, code=None)
        # A value may hold spaces (a command); Slurm's names begin with a capital letter.
        field = re.compile(r"([A-Z][A-Za-z:/]*)=(.*?)(?=\s+[A-Z][A-Za-z:/]*=|\s*$)")
        return [dict(field.findall(line)) for line in said.stdout.splitlines() if "JobId=" in line]

    def wait(
        self, number: str, *, until: str | Callable[[Job], bool], timeout_s: float = PATIENCE_S
    ) -> Job:
        """The job, once it is in state `until`, or `until(job)` is true.

        Raises:
            AssertionError: it is not so in time; with the job and the logs.
        """
        last: Job = {}

        def is_so() -> bool:
            nonlocal last
            last = self.job(number)
            return last["JobState"] == until if isinstance(until, str) else until(last)

        self._until(is_so, f"job {number} is not {until}", timeout_s, AssertionError, lambda: last)
        return last

    def cancel_all(self) -> None:
        """Return when no job waits or runs any more."""
        self.run("scancel", f"--user={os.getuid()}")
        self._until(lambda: not self.run("squeue", "-h").stdout, "jobs do not end")

    def node_down(self, name: str) -> None:
        """Set a node down, until `node_up`; its jobs are killed or requeued at once."""
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def node_up(self, name: str) -> None:
        """Let a node that was set down work again; return when it is ready."""
        self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")
        self._until(lambda: self._states()[name] in {"idle", "mix", "alloc"}, f"{name} is not up")

    def log(self, *names: str, lines: int = 40) -> str:
        """The last lines of the daemons' logs (`slurmctld`, `node1`...); of all by default."""
        paths = [self.folder / f"{name}.log" for name in names] or self.folder.glob("*.log")
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in sorted(paths)
            if path.exists()
        )

    def _until(
        self,
        is_so: Callable[[], bool],
        otherwise: str,
        timeout_s: float = START_S,
        error: type[Exception] = RuntimeError,
        known: Callable[[], object] = lambda: "",
    ) -> None:
        end = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > end:
                raise error(f"{otherwise} after {timeout_s:.0f} s: {known()}\n{self.log()}")
            time.sleep(0.05)

    def _start(self, name: str, *arguments: str) -> None:
        path = program(name)
        assert path, f"{name} is missing"
        assert self._keeper
        assert self._keeper.stdin
        self._keeper.stdin.write(json.dumps([path, *arguments]) + "\n")
        self._keeper.stdin.flush()

    def _start_munged(self) -> None:
        place = self.folder / "munge"
        own = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
        files = [f"--{option}={place / name}" for option, name in own.items()]
        log = f"--log-file={self.folder / 'munged.log'}"
        # Without --force it refuses to run as root, and in a folder that others may write.
        self._start("munged", "--foreground", "--force", *files, log)
        self._until((place / "socket").exists, "munged has no socket")

    def _states(self) -> dict[str, str]:
        said = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", code=None).stdout
        return dict(line.split() for line in said.splitlines())

    def _all_idle(self) -> bool:
        return self._states() == dict.fromkeys(self.nodes, "idle")

    def _write_files(self) -> None:
        self.folder.chmod(0o755)
        for name, mode in {"munge": 0o700, "state": 0o755, "spool": 0o755, "gpus": 0o755}.items():
            (self.folder / name).mkdir(mode=mode)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        for i in range(self.settings.gpus):
            (self.folder / "gpus" / str(i)).touch()
        (self.folder / "slurm.conf").write_text(slurm_conf(self.settings, self.folder, self.nodes))
        (self.folder / "epilog").write_text(epilog(self.folder))
        (self.folder / "epilog").chmod(0o755)
        (self.folder / "gres.conf").write_text(gres_conf(self.settings, self.folder))
