"""A job is broken at a random moment, in a random way, and started again until it is done: all rows
must be there, once, as in an unbroken run. `make stress` has thirty rounds."""

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
from tests.end_to_end.launcher import finished, start

ARGS = [
    *("conf=demo", "data.limit=48", "data.part_rows=4", "generation.max_new_tokens=64"),
    *("generation.temperature=0.5", "engine.max_sequences=4", "output=run", "shutdown_grace_s=3"),
]
FILES = [f"part-{part:05d}.parquet" for part in range(12)]


class Breakage(NamedTuple):
    after_s: float
    who: str
    signum: signal.Signals

    def __str__(self) -> str:
        return f"{self.signum.name} to {self.who} after {self.after_s:.1f} s"


def plan(draw: random.Random, duration_s: float) -> list[Breakage]:
    """One, sometimes two, within the time of an unbroken run."""
    return [
        Breakage(
            draw.uniform(0.0, duration_s),
            draw.choice(["worker", "launcher", "all"]),
            draw.choice([signal.SIGKILL, signal.SIGTERM]),
        )
        for _ in range(draw.choice([1, 1, 2]))
    ]


def unbroken(folder: Path) -> float:
    """The run to compare with; its seconds."""
    begin = time.monotonic()
    finished(ARGS, folder)
    return time.monotonic() - begin


def one_round(folder: Path, reference: Path, breakages: list[Breakage]) -> int:
    """The number of parts that the last start had left to do."""
    for breakage in breakages:
        process = start(ARGS, folder)
        _wait(process, breakage.after_s)
        _break(process, breakage)
        process.communicate(timeout=120)
    left = len(FILES) - len(list((folder / "run" / "data").glob("part-*")))
    finished(ARGS, folder)
    assert sorted(file.name for file in (folder / "run" / "data").iterdir()) == FILES
    assert_same_rows(output_rows(folder / "run"), output_rows(reference / "run"))
    return left


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    end = time.monotonic() + seconds
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
        duration_s = unbroken(reference)
        print(f"unbroken: {duration_s:.1f} s", flush=True)
        for number in range(args.rounds):
            place = Path(folder) / str(number)
            place.mkdir()
            breakages = plan(draw, duration_s)
            left = one_round(place, reference, breakages)
            said = "; ".join(map(str, breakages))
            print(f"{number + 1}: {said}: {left} of {len(FILES)} parts left, all right", flush=True)
    print(f"{args.rounds} rounds: no row lost, none doubled, all equal to the unbroken run's")


if __name__ == "__main__":
    sys.exit(main())
