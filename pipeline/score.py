"""`python -m pipeline.score RUN` runs the generations of a finished run against their tests.

The task (pipeline/tasks) turns each generation into a program that contains its test. Each program
runs by itself, under limits (pipeline/tasks/sandbox.py). The scores are written to the run folder:
scores.parquet has one row per generation, scores.json the summary, which is printed too. The run's
report is written again with them and, if the run is finished, so are its card and summary.json.
"""

import argparse
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import yaml

from engine.errors import UserError
from pipeline.plan.run_json import load
from pipeline.report.finish import describe, write_report
from pipeline.report.found import read_run
from pipeline.report.scores import Scores
from pipeline.report.summary import summarize
from pipeline.run_folder.files import Place, exists, open_parquet, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.starts import identity
from pipeline.tasks import TASKS
from pipeline.tasks.base import Task
from pipeline.tasks.pass_at_k import choose_ks, count_samples, mean_pass_at
from pipeline.tasks.sandbox import Limits, Outcome, SandboxError, run_program

OUTPUT_COLUMNS = ("row_id", "sample_index", "text", "error")
SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("sample_index", pa.int32(), nullable=False),
        pa.field("passed", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("duration_s", pa.float64(), nullable=False),
    ]
)
MAX_REASONS_SHOWN = 10


def score_run(
    run: str | Place,
    *,
    task: str | None = None,
    limits: Limits | None = None,
    num_workers: int | None = None,
    ks: Sequence[int] | None = None,
    is_partial: bool = False,
) -> Scores:
    """Score a run, write scores.parquet and scores.json to its folder, and describe the run again.

    `task` defaults to the job's task, `num_workers` to the number of CPU cores; for `ks` see
    choose_ks. `is_partial` allows a run that is not finished.

    Raises:
        UserError: an option is out of range, or the run cannot be scored.
        SandboxError: the sandbox is broken.
    """
    if num_workers is not None and num_workers < 1:
        raise UserError(f"workers={num_workers}: must be at least 1")
    start = time.perf_counter()
    folder = RunFolder(run)
    scored = identity(folder)
    files, num_missing = data_files(folder, is_partial)
    name = task or task_of(folder)
    if name not in TASKS:
        raise UserError(f"task={name!r}: unknown; choose one of {', '.join(TASKS)}")
    check_columns(files, name, TASKS[name])
    num_prompts, num_samples = count_samples(read_rows(files, ["row_id", "error"]))
    ks = choose_ks(ks, num_samples)
    folder.make()
    rows = read_rows(files, [*OUTPUT_COLUMNS, *TASKS[name].columns])
    scores, has_network = run_all(rows, TASKS[name], limits or Limits(), num_workers or num_cores())
    num_correct = Counter(score["row_id"] for score in scores if score["passed"])
    summary = Scores(
        task=name,
        num_prompts=num_prompts,
        num_rows=len(scores),
        num_passed=num_correct.total(),
        pass_at={k: mean_pass_at(k, num_prompts, num_samples, num_correct) for k in ks},
        reasons=dict(Counter(kind_of(score["reason"]) for score in scores).most_common()),
        missing_parts=num_missing,
        has_network=has_network,
        duration_s=time.perf_counter() - start,
        identity=scored,
    )
    folder.write_table(folder.scores_file, pa.Table.from_pylist(scores, SCHEMA))
    folder.write_text(folder.score_file, summary.to_json())
    tell_scores(folder)
    return summary


def tell_scores(folder: RunFolder) -> None:
    """Write the run's report with the scores. If the run is finished, its card and summary.json
    too; otherwise the job writes these when it ends."""
    found = read_run(folder)
    if found.is_complete and exists(folder.summary_file):
        describe(found, summarize(found))
    else:
        write_report(found, summarize(found))


def data_files(folder: RunFolder, is_partial: bool) -> tuple[list[Place], int]:
    """The output files of the run in order, and the number of planned parts that have none.

    Raises:
        UserError: there is no run, it has no parts, or it is unfinished and `is_partial` is false.
    """
    run = folder.path
    if not exists(folder.plan_file):
        raise UserError(f"run folder {run}: has no run.json; give the output folder of a job")
    num_planned = len(load(folder).parts)
    files = [folder.data_file(part) for part in sorted(folder.parts_done())]
    num_missing = num_planned - len(files)
    if num_missing and not is_partial:
        raise UserError(
            f"run folder {run}: unfinished, {num_missing} of {num_planned} parts are missing; "
            "start the job again to finish it, or score the finished parts with --partial"
        )
    if not files:
        raise UserError(f"run folder {run}: no part is done yet; start the job again to continue")
    return files, num_missing


def task_of(folder: RunFolder) -> str:
    """The task in the run's config.yaml.

    Raises:
        UserError: it names none.
    """
    path = folder.config_file
    config = yaml.safe_load(read_text(path)) if exists(path) else None
    name = (config or {}).get("task")
    if not name:
        raise UserError(f"{path}: names no task; give one with --task: {', '.join(TASKS)}")
    return str(name)


def check_columns(files: list[Place], name: str, task: Task) -> None:
    """
    Raises:
        UserError: the output lacks a column that scoring needs.
    """
    available = open_parquet(files[0]).schema_arrow.names
    missing = [c for c in (*OUTPUT_COLUMNS, *task.columns) if c not in available]
    if missing:
        raise UserError(
            f"task={name!r}: needs the columns {', '.join(missing)}, but {files[0]} has only "
            f"{', '.join(available)}; carry them through the job (data.carry), or change the task"
        )


def read_rows(files: Iterable[Place], columns: list[str]) -> Iterator[dict[str, Any]]:
    for file in files:
        # One file at a time, or pyarrow takes a parent folder like `part=7` for a column.
        yield from open_parquet(file).read(columns=columns).to_pylist()


def run_all(
    rows: Iterable[dict[str, Any]], task: Task, limits: Limits, num_workers: int
) -> tuple[list[dict[str, Any]], bool]:
    """One score per row, in the order of the rows, and whether any program could reach the
    network."""
    scores: list[dict[str, Any]] = []
    has_network = False
    # Bounded, so that only a few programs are in memory, however many rows there are.
    waiting: deque[tuple[dict[str, Any], Future[Outcome | str]]] = deque()

    def collect(num_left: int) -> None:
        nonlocal has_network
        while len(waiting) > num_left:
            row, future = waiting.popleft()
            outcome = future.result()
            if isinstance(outcome, str):
                scores.append(score_of(row, False, outcome, 0.0))
                continue
            has_network = has_network or outcome.has_network
            scores.append(score_of(row, outcome.passed, outcome.reason, outcome.duration_s))

    with ThreadPoolExecutor(num_workers) as executor:
        for row in rows:
            waiting.append((row, executor.submit(judge, row, task, limits)))
            collect(num_left=4 * num_workers)
        collect(num_left=0)
    return scores, has_network


def judge(row: dict[str, Any], task: Task, limits: Limits) -> Outcome | str:
    """Run the row's program; its outcome, or why the row has no program."""
    if row["text"] is None or row["error"] is not None:
        return f"no generation: {row['error'] or 'no text'}"
    null = [column for column in task.columns if row[column] is None]
    if null:
        return f"no test: null in column {', '.join(null)}"
    return run_program(task.program(row, row["text"]), limits)


def score_of(row: dict[str, Any], passed: bool, reason: str, duration_s: float) -> dict[str, Any]:
    """A row of scores.parquet."""
    return {
        "row_id": row["row_id"],
        "sample_index": row["sample_index"],
        "passed": passed,
        "reason": reason,
        "duration_s": duration_s,
    }


def kind_of(reason: str) -> str:
    """The reason without its details: 'failed: AssertionError: no' -> 'failed: AssertionError';
    'no generation: ...' -> 'no generation'."""
    parts = reason.split(": ")
    return ": ".join(parts[:2]) if parts[0] == "failed" else parts[0]


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def report(summary: Scores, run: str | Place) -> str:
    """The text that is printed at the end."""
    lines = [
        f"task {summary.task}: {summary.num_rows} generations for {summary.num_prompts} prompts, "
        f"{summary.duration_s:.1f} s"
    ]
    lines += [f"  pass@{k:<4} {value:.4f}" for k, value in summary.pass_at.items()]
    shown = list(summary.reasons.items())[:MAX_REASONS_SHOWN]
    num_rest = summary.num_rows - sum(count for _, count in shown)
    shown += [("other", num_rest)] if num_rest else []
    lines += [f"  {count:>7}  {count / summary.num_rows:6.1%}  {kind}" for kind, count in shown]
    if summary.missing_parts:
        lines.append(f"partial: {summary.missing_parts} parts of the run are missing")
    if summary.has_network:
        lines.append("programs could reach the network: this system does not allow namespaces")
    return "\n".join([*lines, f"scores by row: {RunFolder(run).scores_file}"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.score", description=__doc__)
    parser.add_argument("run", help="run folder, or an address such as s3://BUCKET/FOLDER")
    parser.add_argument("--task", help="default: the job's task")
    parser.add_argument("--timeout-s", type=float, default=Limits().timeout_s, help="per program")
    parser.add_argument("--workers", type=int, help="programs at a time; default: CPU cores")
    parser.add_argument(
        "--k", type=int, nargs="+", help="of pass@k; default: 1 and the number of samples"
    )
    parser.add_argument("--partial", action="store_true", help="score an unfinished run")
    args = parser.parse_args(argv)
    try:
        summary = score_run(
            args.run,
            task=args.task,
            limits=Limits(timeout_s=args.timeout_s, cpu_s=max(1, math.ceil(args.timeout_s))),
            num_workers=args.workers,
            ks=args.k,
            is_partial=args.partial,
        )
    except (UserError, OSError, SandboxError) as error:
        sys.exit(f"pipeline.score: {error}")
    print(report(summary, args.run))


if __name__ == "__main__":
    main()
