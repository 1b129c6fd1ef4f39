"""Measures what the host does in an iteration: run_iteration with a model of no layers.

Prompts have 512 tokens and answers 256, in blocks of 32. The batch is always full, its sequences
are at different places of their lives, and a finished one is replaced at once; all take part in
every iteration. One commits at least one token per iteration (decoding=threshold), with cache=dual
in a bidirectional model and cache=block_causal in a block-causal one. The vocabulary has 64 words,
so little is left of the model and the head, but all torch operations of the strategy are included:
they are the device part, which on a CPU is computed by the host too. On a GPU it is kernels or the
replay of a graph, and what the card waits for is the host's own part, which is told apart:
schedule, pack and send, advance.

Times are medians over iterations, in a fresh process with one thread. With --before, another
revision or another checkout is measured by the same script, in processes that alternate with those
of this one, because a machine's speed drifts.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.bench.provenance import provenance
from jobs.bench.workload import others_share

ROOT = Path(__file__).parent.parent.parent
SCRIPT = Path(__file__).parent / "iteration_times.py"
BATCHES = (1, 32, 128, 256)

Cases = dict[tuple[str, int], dict[str, Any]]
"""(cache, batch) -> the times of one process."""


def run(*, before: str | None, batches: list[int], iterations: int, rounds: int) -> dict[str, Any]:
    """Measure, print a table, return the report.

    Raises:
        ValueError: `before` is neither a checkout nor a revision of this one.
    """
    measured: dict[str, list[Cases]] = {"before": [], "now": []}
    with others_share() as others, _checkout(before) as folder:
        for _ in range(rounds):
            if folder is not None:
                measured["before"].append(_measure(folder, batches, iterations))
            measured["now"].append(_measure(ROOT, batches, iterations))
    cases = [_case(key, measured) for key in measured["now"][0]]
    _print(cases)
    return {
        "benchmark": "host",
        "before": before,
        "iterations": iterations,
        "rounds": rounds,
        "cases": cases,
        "others_share_of_cores": others.share,
        **provenance("cpu"),
    }


def _case(key: tuple[str, int], measured: dict[str, list[Cases]]) -> dict[str, Any]:
    """Medians over the rounds, and the ratio of the totals, round by round."""
    case: dict[str, Any] = {"cache": key[0], "batch": key[1]}
    for name, each_round in measured.items():
        if each_round:
            times = [cases[key] for cases in each_round]
            parts = {
                part: statistics.median(each["parts_ms"][part] for each in times)
                for part in times[0]["parts_ms"]
            }
            case[name] = {
                "total_ms": statistics.median(each["total_ms"] for each in times),
                "host_ms": sum(ms for part, ms in parts.items() if part != "device"),
                "parts_ms": parts,
            }
    if measured["before"]:
        case["before_over_now"] = statistics.median(
            one[key]["total_ms"] / other[key]["total_ms"]
            for one, other in zip(measured["before"], measured["now"], strict=True)
        )
    return case


def _measure(folder: Path, batches: list[int], iterations: int) -> Cases:
    """The times of the checkout in this folder."""
    sizes = ["--batches", *map(str, batches), "--iterations", str(iterations)]
    done = subprocess.run(
        # -P: the script's own folder has a module `engine` too.
        [sys.executable, "-P", str(SCRIPT), *sizes],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring {folder} failed:\n{done.stderr}")
    report = json.loads(done.stdout)
    assert Path(report["engine"]).is_relative_to(folder.resolve()), "another engine was imported"
    return {(case["cache"], case["batch"]): case for case in report["cases"]}


@contextmanager
def _checkout(before: str | None) -> Iterator[Path | None]:
    """The folder of a checkout, or a temporary one of a revision."""
    if before is None:
        yield None
        return
    if (Path(before) / "engine").is_dir():
        yield Path(before)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        made = subprocess.run(
            [*git, "add", "--detach", str(folder), before],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ValueError(
                f"--before={before}: neither a folder with the package engine nor a revision of "
                f"{ROOT}; give one of them ({made.stderr.strip()})"
            )
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _print(cases: list[dict[str, Any]]) -> None:
    print(
        "ms per iteration: in all, the host's own part of it, then schedule, pack and send, device "
        "part, advance"
    )
    for case in cases:
        for name in ("before", "now"):
            if name in case:
                parts = " ".join(f"{ms:7.3f}" for ms in case[name]["parts_ms"].values())
                total = f"{case[name]['total_ms']:8.3f} {case[name]['host_ms']:8.3f}"
                print(f"{case['cache']:>12} {case['batch']:>4} {name:>7} {total}  {parts}")
        if "before_over_now" in case:
            print(f"{'':>26}{case['before_over_now']:8.2f} x")
