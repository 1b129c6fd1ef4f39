"""Break one job on a real Slurm ten times at random moments in random ways, without helping it, and
compare its rows with an undisturbed run's: none may be lost, doubled or different."""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.checkpoints import assert_same_rows, output_rows
from tests.end_to_end.launcher import environment, finished
from tests.slurm.cluster import Cluster, missing_binaries
from tests.slurm.submitted import AGENT, NODE, SRUN, WORKER, Submitted

NUM_PARTS = 160
ARGS = [
    *(
        "conf=demo",
        "task=null",
        f"data.limit={NUM_PARTS}",
        "data.part_rows=1",
        "generation.max_new_tokens=32",
    ),
    *("generation.temperature=0.5", "engine.max_sequences=2"),
]
PACE_S = 0.5
FILES = [f"part-{part:05d}.parquet" for part in range(NUM_PARTS)]


@dataclass(frozen=True)
class Breakage:
    name: str
    does: Callable[[Submitted, str], None]
    """Breaks a job, on one of its nodes."""
    is_survived: bool = False
    """Whether the start goes on."""


def command(*words: str) -> Callable[[Submitted, str], None]:
    """Run a command of Slurm's; JOB in it stands for the job."""

    def run(job: Submitted, node: str) -> None:
        job.cluster.run(*(word.replace("JOB", str(job.id)) for word in words))

    return run


def killing(what: str) -> Callable[[Submitted, str], None]:
    def kill(job: Submitted, node: str) -> None:
        job.kill(node, what)

    return kill


def down_and_up(job: Submitted, node: str) -> None:
    job.cluster.node_down(node)
    time.sleep(1.0)
    job.cluster.node_up(node)


BREAKAGES = [
    Breakage("scontrol requeue", command("scontrol", "requeue", "JOB")),
    Breakage("SIGTERM to the step", command("scancel", "--signal=TERM", "JOB.0")),
    Breakage("SIGKILL to the step", command("scancel", "--signal=KILL", "JOB.0")),
    Breakage("SIGUSR1 to the batch", command("scancel", "--batch", "--signal=USR1", "JOB")),
    Breakage("SIGTERM to the batch", command("scancel", "--batch", "--signal=TERM", "JOB")),
    Breakage("kill -9 of a worker", killing(WORKER), is_survived=True),
    Breakage("kill -9 of torchrun", killing(AGENT)),
    Breakage("kill -9 of the node's process", killing(NODE)),
    Breakage("kill -9 of srun", lambda job, _: job.kill("node1", SRUN)),
    Breakage("down and up", down_and_up),
]


@dataclass(frozen=True)
class Moment:
    """When a start is broken: after so many parts, or else after so many seconds."""

    parts: int | None
    after_s: float

    def __str__(self) -> str:
        since = "its processes began" if self.parts is None else f"{self.parts} parts"
        return f"{self.after_s:.1f} s after {since}"


def moments(draw: random.Random, num: int) -> list[Moment]:
    """Two starts in a row without a part would rightly end the job: never two early ones."""
    found: list[Moment] = []
    for _ in range(num):
        was_early = bool(found) and found[-1].parts is None
        if not was_early and draw.random() < 0.3:
            found.append(Moment(None, draw.uniform(0.0, 6.0)))
        else:
            found.append(Moment(draw.randint(1, 4), draw.uniform(0.0, 1.0)))
    return found


def wait(job: Submitted, moment: Moment, restart: int) -> None:
    """Wait for a moment of start `restart`."""
    job.wait_for_start(restart)
    if moment.parts is None:
        job.wait_until(lambda: bool(job.processes("node2", NODE)), "its processes do not begin")
    else:
        before = max(job.starts()[-1].parts_before, 0)
        job.wait_for_parts(min(NUM_PARTS, before + moment.parts))
    time.sleep(moment.after_s)


def stress(folder: Path, draw: random.Random, num: int) -> None:
    """Break a job `num` times.

    Raises:
        AssertionError: it does not end well, or its rows are not those of an undisturbed run.
    """
    (folder / "whole").mkdir()
    finished([*ARGS, "output=run"], folder / "whole", num_workers=1)
    (folder / "broken").mkdir()
    with Cluster() as cluster:
        job = Submitted(cluster, folder / "broken", ARGS, pace_s=PACE_S)
        restart = 0
        for number, moment in enumerate(moments(draw, num)):
            is_early = moment.parts is None
            usable = [its for its in BREAKAGES if not (is_early and its.is_survived)]
            breakage, node = draw.choice(usable), draw.choice(["node1", "node2"])
            wait(job, moment, restart)
            print(
                f"{number + 1}: {breakage.name} ({node}) {moment}; start {restart}, parts done: "
                f"{job.parts()}",
                flush=True,
            )
            breakage.does(job, node)
            restart += not breakage.is_survived
        starts = job.end()
        for its in starts:
            print(f"start {its.restart}: {its.parts_after} parts, {its.outcome}: {its.why}")
    assert sorted(its.name for its in (job.path / "data").iterdir()) == FILES
    assert_same_rows(output_rows(job.path), output_rows(folder / "whole" / "run"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--breakages", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    if missing := missing_binaries():
        sys.exit(f"Slurm's {', '.join(missing)} not found; tests/slurm/install.sh installs them")
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    print(f"stress on Slurm: {args.breakages} breakages, seed {seed}", flush=True)
    own = {**environment(), "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, own):
        stress(Path(folder), random.Random(seed), args.breakages)
    print(f"{args.breakages} breakages: no row lost, none doubled, all equal to the whole run's")


if __name__ == "__main__":
    main()
