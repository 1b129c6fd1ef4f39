"""Runs torchrun on all nodes of this job, by one step of srun, and passes on Slurm's signals.

SIGUSR1   the time limit is near, or a preemption that gives notice: the step's processes get
          SIGTERM, through Slurm. srun must get no signal: it would kill the step at once
SIGTERM   Slurm ends the job, and tells the step's processes itself
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from jobs.slurm.node import NOT_SHARED, NodeEnd, read_ends
from jobs.slurm.start import ThisStart, shielded
from pipeline.slurm import commands
from pipeline.slurm.commands import SlurmError

POLL_S = 0.1
AGAIN_S = 5.0
"""Seconds between two tries to tell the step to end: it may not have begun yet."""
PORT_TRIES = 3
PORTS = range(20_000, 32_000)
"""Below those that a system gives to whoever asks for any."""
KILLED_BEFORE_S = 20
"""Workers that hang are killed so many seconds before the job would be."""


class Told:
    """What Slurm has told this process, and when."""

    def __init__(self) -> None:
        self.warned_at: float | None = None
        self.terminated_at: float | None = None

    def listen(self) -> None:
        """From now on, note SIGUSR1 and SIGTERM, which otherwise end this process."""
        signal.signal(signal.SIGUSR1, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def stop_listening(self) -> None:
        """From now on, ignore both signals: Python, when it ends, takes its own handlers away, and
        a signal that comes late would turn this process's exit code into a failure."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    @property
    def is_to_end(self) -> bool:
        return self.warned_at is not None or self.terminated_at is not None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        name = "warned_at" if signum == signal.SIGUSR1 else "terminated_at"
        if getattr(self, name) is None:
            setattr(self, name, time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnd:
    """How the work of a start ended."""

    exit_code: int
    """Of srun."""
    nodes: list[NodeEnd | None]
    """By number; None: torchrun has not begun there."""

    @property
    def is_well(self) -> bool:
        """Whether torchrun ended without an error on all nodes."""
        return all(its is not None and its.exit_code == 0 for its in self.nodes)

    @property
    def is_not_shared(self) -> bool:
        return self.exit_code == NOT_SHARED

    @property
    def is_port_taken(self) -> bool:
        return any(its is not None and its.is_port_taken for its in self.nodes)


def run_step(
    start: ThisStart, words: Sequence[str], told: Told, is_ending: Callable[[], bool]
) -> StepEnd:
    """Run the job's workers until they end; `words` are their module and its arguments.

    `is_ending` is called once after SIGTERM: whether it is Slurm that ends the job, and will soon
    kill this process. Somebody else's SIGTERM is taken as SIGUSR1 is.
    """
    proofs = _proofs(start)
    env = {
        **os.environ,
        "PIPELINE_SUBMISSION": start.name,
        "PIPELINE_SUBMISSION_RUN": str(start.folder.path),
    }
    if start.config.offline:
        env["HF_HUB_OFFLINE"] = "1"
    for attempt in range(PORT_TRIES):
        command = srun(start, [*_node(start, proofs, attempt), "--", *words])
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env)
        code = _wait(process, f"{start.label}.{attempt}", told, is_ending)
        nodes = read_ends(start.place, start.name, attempt, len(start.nodes))
        end = StepEnd(exit_code=code, nodes=nodes)
        if not end.is_port_taken or told.is_to_end:
            break
    return end


def srun(start: ThisStart, node: Sequence[str]) -> list[str]:
    """The command that runs `node` once on each node, with all that the job has there.

    --wait=0: nodes may end at different times. --cpu-bind: each process has all CPUs of its node.
    """
    num = len(start.nodes)
    command = [
        *("srun", f"--nodes={num}", f"--ntasks={num}", "--ntasks-per-node=1", "--export=ALL"),
        *("--kill-on-bad-exit=1", "--wait=0", "--cpu-bind=none", "--label", "--unbuffered"),
    ]
    config = start.config
    if config.container is None:
        return [*command, config.python or sys.executable, *node]
    inside = [config.python or "python", *node]
    mounts = ",".join(_mounts(start))
    if config.container_runtime == "pyxis":
        image = f"--container-image={config.container}"
        where = f"--container-workdir={os.getcwd()}"
        return [*command, image, f"--container-mounts={mounts}", where, *inside]
    gpus = ["--nv"] if config.gpus_per_node else []
    run = ["apptainer", "exec", *gpus, "--bind", mounts, "--pwd", os.getcwd()]
    return [*command, *run, config.container, *inside]


def _mounts(start: ThisStart) -> list[str]:
    """The folders that are seen in the container, as PATH:INSIDE."""
    own = [os.getcwd(), str(start.place)]
    if isinstance(start.folder.path, Path):
        own.append(str(start.folder.path))
    pairs = [its if ":" in its else f"{its}:{its}" for its in start.config.container_mounts or []]
    return list(dict.fromkeys([*(f"{its}:{its}" for its in own), *pairs]))


def _node(start: ThisStart, proofs: Sequence[Path], attempt: int) -> list[str]:
    """The command line of jobs.slurm.node, after Python."""
    config, nodes = start.config, start.nodes
    return [
        *("-m", "jobs.slurm.node", f"--folder={start.place}", f"--start={start.name}"),
        *(f"--proof={proof}" for proof in proofs),
        *(f"--attempt={attempt}", f"--nodes={len(nodes)}", f"--ranks={config.ranks}"),
        *(f"--first={nodes[0]}", f"--second={nodes[1] if len(nodes) > 1 else ''}"),
        f"--port={free_port()}",
        f"--shutdown-s={max(1, config.signal_s - KILLED_BEFORE_S)}",
    ]


def _proofs(start: ThisStart) -> list[Path]:
    """Write the files by which each node sees that it shares the job's folders with this one."""
    folders = {start.place / "nodes": None}
    if isinstance(start.folder.slurm, Path):
        folders[start.folder.slurm / "nodes"] = None
    (start.place / "logs").mkdir(parents=True, exist_ok=True)
    proofs = [folder / f"{start.name}.shared" for folder in folders]
    for proof in proofs:
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.touch()
    return proofs


def free_port() -> int:
    """A port on which nobody listens on this machine, the first node, at this moment."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


def _wait(
    process: subprocess.Popen[bytes], step: str, told: Told, is_ending: Callable[[], bool]
) -> int:
    """The exit code of srun, once it has ended."""
    is_asked, is_passed_on, next_try = False, False, 0.0
    while process.poll() is None:
        if told.terminated_at is not None and not is_asked:
            is_asked, is_passed_on = True, is_ending()
        elif told.is_to_end and not is_passed_on and time.monotonic() > next_try:
            is_passed_on = _terminate(step)
            next_try = time.monotonic() + AGAIN_S
        time.sleep(POLL_S)
    return process.wait()


def _terminate(step: str) -> bool:
    """Tell the step's processes to end; whether Slurm has taken that."""
    try:
        with shielded():
            commands.terminate_step(step)
    except SlurmError as error:
        print(f"step {step} is not told to end yet: {error}", flush=True)
        return False
    return True
