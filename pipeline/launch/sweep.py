"""The jobs of a sweep: a run folder of its own for each, and one table at the end.

Jobs of a sweep that would have the same `output` get a folder in it, named after what differs:
`-m conf=humaneval decoding=threshold,factor` fills runs/humaneval/decoding=threshold and
runs/humaneval/decoding=factor.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import UserError
from pipeline.config.job import JobConfig
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import number

UNSAFE = re.compile(r"[^\w.=+-]+")
"""Characters that a folder's name shall not have."""
NAME_LENGTH = 100
FIGURES = ("rows", "failed", "tokens/s", "tokens per forward", "folder")


@dataclass(frozen=True, slots=True)
class Sweep:
    configs: list[JobConfig]
    """The jobs in their order, no two with the same output."""
    values: list[dict[str, str]]
    """What each job sets that not all of them set alike: field or group -> value."""

    @classmethod
    def of(cls, configs: Sequence[JobConfig], overrides: Sequence[Sequence[str]]) -> "Sweep":
        """`overrides` are each job's GROUP=NAME and FIELD=VALUE; all jobs have the same keys.

        Raises:
            UserError: the jobs would do different shares.
        """
        if len(shares := dict.fromkeys(str(config.share) for config in configs)) > 1:
            raise UserError(
                f"share={','.join(shares)}: the jobs of a sweep run one after another, shares at "
                "the same time; start one launch for each share, with the same output"
            )
        pairs = [dict(its.split("=", 1) for its in job) for job in overrides]
        outputs = [config.output for config in configs]
        named = []
        for at, config in enumerate(configs):
            same = [pairs[i] for i, output in enumerate(outputs) if output == config.output]
            named.append(config if len(same) == 1 else _in_own_folder(config, pairs[at], same, at))
        keys = _differing(pairs)
        return cls(named, [{key: job[key].strip("'\"") for key in keys} for job in pairs])


@contextmanager
def printed_table(sweep: Sweep, is_shown: bool) -> Iterator[None]:
    """At the end, also after a job that stops, print a table of the jobs that have a summary."""
    try:
        yield
    finally:
        lines = table(sweep) if is_shown else []
        print("\n".join(["", *lines]) if lines else "", end="\n" if lines else "", flush=True)


def table(sweep: Sweep) -> list[str]:
    """A line for each job that has a summary, below a line of headings; [] if none has."""
    rows = []
    for config, values in zip(sweep.configs, sweep.values, strict=True):
        file = RunFolder(config.output).summary_file
        if file.exists():
            rows.append([*values.values(), *_figures(json.loads(file.read_text())), config.output])
    if not rows:
        return []
    cells = [[*sweep.values[0], *FIGURES], *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    first = len(sweep.values[0])
    is_number = range(first, first + len(FIGURES) - 1)
    return [
        "  ".join(
            cell.rjust(width) if at in is_number else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _figures(summary: dict[str, Any]) -> list[str]:
    return [
        f"{summary['num_rows_out']:,}",
        f"{summary['num_failed']:,}",
        number(summary["tokens_per_s"]),
        number(summary["tokens_per_forward"]),
    ]


def _in_own_folder(
    config: JobConfig, own: dict[str, str], same: list[dict[str, str]], at: int
) -> JobConfig:
    """The job with an output of its own; `same` are the values of all jobs that have its output."""
    name = _name(own, keys := _differing(same))
    is_unique = [_name(its, keys) for its in same].count(name) == 1
    if not is_unique or len(name) > NAME_LENGTH:
        name = f"{name[:NAME_LENGTH]},{at}"
    return replace(config, output=f"{config.output.rstrip('/')}/{name}")


def _name(job: dict[str, str], keys: Sequence[str]) -> str:
    return ",".join(UNSAFE.sub("_", f"{key}={job[key]}").strip("_") for key in keys)


def _differing(jobs: Sequence[dict[str, str]]) -> list[str]:
    return [key for key in jobs[0] if len({job[key] for job in jobs}) > 1]
