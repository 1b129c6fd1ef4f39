"""Measures a whole job with a stand-in for the engine: plan, claim, read, build prompts, write."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import UserError
from jobs.bench.workload import DEMO
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from pipeline.stats.versions import git_revision, library_versions

FILES = 20
CAUSES = ("claim_s", "read_s", "write_s", "idle_s")


def run(rows: int, part_rows: int, workers: int, chat: bool) -> dict[str, Any]:
    """Run `rows` tiny prompts through a job of `workers` workers, check its output (see `check`),
    then print the speed and return the report."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_prompts(place / "in", rows)
        begin = time.monotonic()
        launch(place, part_rows, workers, chat)
        wall_s = time.monotonic() - begin
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        num_checked = check(place, rows, chat)
        summary = json.loads((place / "run" / "summary.json").read_text())
    report = {
        "benchmark": "job",
        "rows": rows,
        "part_rows": part_rows,
        "workers": workers,
        "chat": chat,
        "rows_checked": num_checked,
        "wall_s": wall_s,
        "rows_per_s": rows / wall_s,
        "worker_s": {
            name: summary[name] for name in ("start_s", "plan_s", "load_s", *CAUSES, "total_s")
        },
        "peak_bytes_of_a_worker": peak,
        "cores": os.cpu_count(),
        "versions": library_versions(),
        "git_revision": git_revision(),
    }
    print_summary(report)
    return report


def write_prompts(folder: Path, rows: int) -> None:
    folder.mkdir()
    bounds = [rows * i // FILES for i in range(FILES + 1)]
    for i, (first, end) in enumerate(pairwise(bounds)):
        table = pa.table({"prompt": [text(row) for row in range(first, end)]})
        pq.write_table(table, folder / f"{i:02d}.parquet", row_group_size=10_000)


def text(row: int) -> str:
    return f"add {row} and {row % 7}"


def launch(place: Path, part_rows: int, workers: int, chat: bool) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={workers}"]
    job = [
        *("-m", "pipeline.run", "stand_in=true", f"model.path={DEMO}", f"data.path={place / 'in'}"),
        *(f"data.part_rows={part_rows}", f"output={place / 'run'}", "threads=1"),
        *("generation.max_new_tokens=16", f"prompt.chat={str(chat).lower()}"),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, *job], env=env, check=True, stdout=sys.stderr)


def check(place: Path, rows: int, chat: bool) -> int:
    """Check that every row has its prompt and no error, and that in every 1000th row the token ids
    are those that the stand-in must give. Returns the number of rows.

    Raises:
        UserError: a row is missing, failed, or has another row's content.
    """
    prompter = Prompter(DEMO, PromptConfig(chat=chat), 1024)
    seen = 0
    for file in sorted((place / "run" / "data").glob("*.parquet")):
        table = pq.ParquetFile(file).read(columns=["prompt", "token_ids", "error"])
        expected = [text(seen + i) for i in range(table.num_rows)]
        if table["prompt"].to_pylist() != expected or table["error"].null_count != table.num_rows:
            raise UserError(f"{file.name}: has failed rows, or rows that do not match the input")
        for i in range(0, table.num_rows, 1000):
            ids = prompter.token_ids({"prompt": expected[i]})[:16]
            if table["token_ids"][i].as_py() != ids:
                raise UserError(f"{file.name} row {i}: token_ids are not those of its prompt")
        seen += table.num_rows
    if seen != rows:
        raise UserError(f"{seen} rows came out, {rows} went in")
    return seen


def print_summary(report: dict[str, Any]) -> None:
    print(
        f"{report['rows']:,} rows in parts of {report['part_rows']:,} on {report['workers']} "
        f"workers: {report['wall_s']:.1f} s, {report['rows_per_s']:,.0f} rows/s, start and end of "
        f"all processes included; {report['peak_bytes_of_a_worker'] / 2**20:,.0f} MiB for the "
        f"largest worker; every row checked"
    )
    seconds = report["worker_s"]
    print("  seconds of all workers: " + ", ".join(f"{k[:-2]} {v:.1f}" for k, v in seconds.items()))
