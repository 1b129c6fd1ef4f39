"""Interrupt a job at random moments in random ways, resume it until it is done, and compare its
rows with an uninterrupted run's: none may be lost, doubled or different. `make stress` has thirty
rounds."""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.checkpoints import assert_same_rows, output_rows
from tests.end_to_end.launcher import PATIENCE_S, finished, start, wait_for_parts

ARGS = [
    *("conf=demo", "data.limit=240", "data.part_rows=4", "generation.max_new_tokens=64"),
    *("generation.temperature=0.5", "engine.max_sequences=4", "output=run", "shutdown_grace_s=3"),
]
FILES = [f"part-{part:05d}.parquet" for part in range(60)]


class Unbroken(NamedTuple):
    """How long an uninterrupted run takes."""

    first_part_s: float
    """From the launch to the first part."""
    work_s: float
    """From the first part to the last."""


class Breakage(NamedTuple):
    after_s: float
    is_in_work: bool
    """Whether `after_s` counts from the first part that this launch writes, not from the launch."""
    who: str
    signum: signal.Signals

    def __str__(self) -> str:
        since = "its first part" if self.is_in_work else "the launch"
        return f"{self.signum.name} to {self.who} {self.after_s:.1f} s after {since}"


def plan(draw: random.Random, unbroken: Unbroken) -> list[Breakage]:
    """One breakage, sometimes two. Most come while parts are written, about half of a run."""
    return [_breakage(draw, unbroken) for _ in range(draw.choice([1, 1, 2]))]


def _breakage(draw: random.Random, unbroken: Unbroken) -> Breakage:
    is_in_work = draw.random() < 0.7
    return Breakage(
        draw.uniform(0.0, unbroken.work_s if is_in_work else unbroken.first_part_s),
        is_in_work,
        draw.choice(["worker", "launcher", "all"]),
        draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
    )


def unbroken(folder: Path) -> Unbroken:
    """Run the uninterrupted job that the others are compared with, and time it."""
    begin, process = time.monotonic(), start(ARGS, folder)
    wait_for_parts(process, folder / "run", 1)
    first_part = time.monotonic()
    wait_for_parts(process, folder / "run", len(FILES))
    last_part = time.monotonic()
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return Unbroken(first_part - begin, last_part - first_part)


def one_round(folder: Path, reference: Path, breakages: list[Breakage]) -> list[int]:
    """Break the job as planned, resume it to its end and compare its rows. Returns the number of
    parts in data/ at the end of each launch."""
    done = []
    for breakage in breakages:
        process = start(ARGS, folder)
        _wait(process, folder, breakage)
        _break(process, breakage)
        process.communicate(timeout=PATIENCE_S)
        done.append(_num_parts(folder))
    finished(ARGS, folder)
    assert sorted(file.name for file in (folder / "run" / "data").iterdir()) == FILES
    assert_same_rows(output_rows(folder / "run"), output_rows(reference / "run"))
    return [*done, _num_parts(folder)]


def _num_parts(folder: Path) -> int:
    return len(list((folder / "run" / "data").glob("part-*")))


def _wait(process: subprocess.Popen[str], folder: Path, breakage: Breakage) -> None:
    num_before = _num_parts(folder)
    if breakage.is_in_work:
        while process.poll() is None and _num_parts(folder) == num_before:
            time.sleep(0.01)
    end = time.monotonic() + breakage.after_s
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def _break(process: subprocess.Popen[str], breakage: Breakage) -> None:
    workers = _children(process.pid)
    if breakage.who == "launcher" or not workers:
        targets = [process.pid]
    elif breakage.who == "worker":
        targets = [workers[-1]]
    else:
        targets = [process.pid, *workers]
    for pid in targets:
        try:
            os.kill(pid, breakage.signum)
        except ProcessLookupError:
            continue


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    draw = random.Random(seed)
    print(f"stress: {args.rounds} rounds, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "unbroken"
        reference.mkdir()
        times = unbroken(reference)
        print(f"unbroken: {times.first_part_s:.1f} s, then {times.work_s:.1f} s", flush=True)
        for number in range(args.rounds):
            place = Path(folder) / str(number)
            place.mkdir()
            breakages = plan(draw, times)
            print(f"{number + 1}: {'; '.join(map(str, breakages))}", end="", flush=True)
            done = one_round(place, reference, breakages)
            print(f"; parts done: {', '.join(map(str, done))}", flush=True)
    print(f"{args.rounds} rounds: no row lost, none doubled, all equal to the unbroken run's")


if __name__ == "__main__":
    sys.exit(main())
