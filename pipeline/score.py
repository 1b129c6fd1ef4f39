"""`python -m pipeline.score RUN` judges the generations of a finished run.

The task (pipeline/tasks) turns each generation into a program that contains its test, or looks at
its text. Each program runs by itself, under limits (pipeline/tasks/sandbox.py). The scores are
written to the run folder: scores.parquet has one row per generation, scores.json the summary, which
is printed too. The run's report is written again with them and, if the run is finished, so are its
card and summary.json.
"""

import argparse
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import yaml

from engine.errors import UserError
from pipeline.plan.run_json import load
from pipeline.report.finish import describe, write_report
from pipeline.report.found import read_run
from pipeline.report.scores import Scores
from pipeline.report.summary import summarize
from pipeline.run_folder.files import Place, exists, is_whole_parquet, open_parquet, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.counting import CountingLine
from pipeline.stats.formatting import with_error
from pipeline.stats.starts import identity
from pipeline.tasks import TASKS
from pipeline.tasks.base import Task
from pipeline.tasks.figures import Figure, metric_figures, pass_at_figures, tables
from pipeline.tasks.judges import JudgeError
from pipeline.tasks.pass_at_k import choose_ks, count_samples
from pipeline.tasks.sandbox import Limits, SandboxError
from pipeline.tasks.trials import COLUMNS, kind_of, run_all
from pipeline.workers.refusals import show, why_not_read

FIELDS = [
    pa.field("row_id", pa.string(), nullable=False),
    pa.field("sample_index", pa.int32(), nullable=False),
    pa.field("passed", pa.bool_(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("duration_s", pa.float64(), nullable=False),
]
"""The columns of scores.parquet, before those of the task's metrics."""
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

    `task` defaults to the job's task, `num_workers` to the CPU cores; for `ks` see choose_ks.
    `is_partial` allows a run that is not finished.

    Raises:
        UserError: an option is out of range, or the run cannot be scored.
        OSError, SandboxError, JudgeError: a file cannot be read or written, or the sandbox or the
            task is broken.
    """
    if num_workers is not None and num_workers < 1:
        raise UserError(f"workers={num_workers}: must be at least 1")
    start, folder = time.perf_counter(), RunFolder(run)
    scored = identity(folder)
    files, num_missing = data_files(folder, is_partial)
    name = chosen_task(task, folder, files)
    num_prompts, num_samples = count_samples(read_rows(files, ["row_id", "error"]))
    ks = choose_ks(ks, num_samples)
    folder.make()
    its = TASKS[name]
    scores, has_network = score_rows(files, its, limits, num_workers)
    pass_at = pass_at_figures(ks, scores, num_prompts, num_samples)
    summary = Scores(
        task=name,
        num_prompts=num_prompts,
        tables=tables_of(scores),
        missing_parts=num_missing,
        has_network=has_network,
        duration_s=time.perf_counter() - start,
        identity=scored,
        **figures_of(pass_at, metric_figures(its.metrics, scores)),
        **counts_of(scores),
    )
    write_scores(folder, its, summary, scores)
    return summary


def score_rows(
    files: list[Place], task: Task, limits: Limits | None, num_workers: int | None
) -> tuple[list[dict[str, Any]], bool]:
    """The scores of all rows, and whether any program could reach the network. A line on stderr
    says meanwhile how far this is."""
    num_rows = sum(open_parquet(file).metadata.num_rows for file in files)
    available = open_parquet(files[0]).schema_arrow.names
    rows = read_rows(files, [*COLUMNS, *(name for name in task.columns if name in available)])
    num_workers = num_workers or num_cores()
    with CountingLine("scoring", "generations", num_rows, num_workers) as line:
        return run_all(rows, task, limits or Limits(), num_workers, line.show)


def figures_of(pass_at: Mapping[int, Figure], metrics: Mapping[str, Figure]) -> dict[str, Any]:
    """The fields of Scores that are figures, and their standard errors."""
    every = {f"pass@{k}": figure for k, figure in pass_at.items()} | dict(metrics)
    return {
        "pass_at": {k: figure.value for k, figure in pass_at.items()},
        "metrics": {name: figure.value for name, figure in metrics.items()},
        "stderr": {name: figure.stderr for name, figure in every.items()},
    }


def tables_of(scores: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The field Scores.tables."""
    return {
        table: [{"category": category, **asdict(figure)} for category, figure in its.items()]
        for table, its in tables(scores).items()
    }


def counts_of(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of Scores that count rows."""
    return {
        "num_rows": len(scores),
        "num_passed": sum(score["passed"] for score in scores),
        "reasons": dict(Counter(kind_of(score["reason"]) for score in scores).most_common()),
    }


def write_scores(
    folder: RunFolder, task: Task, summary: Scores, scores: list[dict[str, Any]]
) -> None:
    """Write the scores, and the run's report with them. If the run is finished, write its card and
    summary.json too; otherwise the job writes these when it ends."""
    folder.write_table(folder.scores_file, pa.Table.from_pylist(scores, schema_of(task)))
    folder.write_text(folder.score_file, summary.to_json())
    found = read_run(folder)
    if found.is_complete and exists(folder.summary_file):
        describe(found, summarize(found))
    else:
        write_report(found, summarize(found))


def schema_of(task: Task) -> pa.Schema:
    """The columns of scores.parquet: null where a row has no test."""
    weights = [metric.weight for metric in task.metrics if metric.weight]
    names = dict.fromkeys([*(metric.name for metric in task.metrics), *weights])
    return pa.schema([*FIELDS, *(pa.field(name, pa.float64()) for name in names)])


def data_files(folder: RunFolder, is_partial: bool) -> tuple[list[Place], int]:
    """The output files of the run in order, and the number of planned parts that have none.

    Raises:
        UserError: there is no run, it has no parts, one is cut short, or it is unfinished and
            `is_partial` is false.
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
    for file in files:
        if not is_whole_parquet(file):
            raise UserError(
                f"{file}: is not a complete Parquet file; start the job again, which sets it aside "
                "and makes its rows again"
            )
    return files, num_missing


def chosen_task(task: str | None, folder: RunFolder, files: list[Place]) -> str:
    """The name of the given task, or of the task in the run's config.yaml.

    Raises:
        UserError: there is none, it is unknown, what it needs is not installed, or the output lacks
            a column that it needs.
    """
    name = task or task_of(folder)
    if name not in TASKS:
        raise UserError(f"task={name!r}: unknown; choose one of {', '.join(TASKS)}")
    check_columns(files, name, TASKS[name])
    TASKS[name].check_installed(name)
    return name


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
    needed = [c for c in (*COLUMNS, *task.columns) if c not in task.nullable]
    missing = [c for c in needed if c not in available]
    if missing:
        raise UserError(
            f"task={name!r}: needs the columns {', '.join(missing)}, but {files[0]} has only "
            f"{', '.join(available)}; carry them through the job (data.carry), or change the task"
        )


def read_rows(files: Iterable[Place], columns: list[str]) -> Iterator[dict[str, Any]]:
    for file in files:
        # One file at a time, or pyarrow takes a parent folder like `part=7` for a column.
        yield from open_parquet(file).read(columns=columns).to_pylist()


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def report(summary: Scores, run: str | Place) -> str:
    """The text that is printed at the end."""
    lines = [
        f"task {summary.task}: {summary.num_rows} generations for {summary.num_prompts} prompts, "
        f"{summary.duration_s:.1f} s"
    ]
    lines += [f"  {name:<9} {value}" for name, value in summary.figures()]
    for table, its in summary.tables.items():
        lines.append(f"  by {table}:")
        lines += [
            f"    {with_error(one['value'], one['stderr']):<18} {one['category']} ({one['num']:,})"
            for one in its
        ]
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
    except KeyboardInterrupt:
        print("pipeline.score interrupted (Ctrl-C); no scores are written", file=sys.stderr)
        raise SystemExit(130) from None
    except (SandboxError, JudgeError) as error:
        sys.exit(f"pipeline.score: {error}")
    except Exception as error:
        raise SystemExit(f"pipeline.score: {why_not_read(error, args.run)}") from error
    show(report(summary, args.run))


if __name__ == "__main__":
    main()
