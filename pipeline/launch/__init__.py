"""Turn the command line into a JobConfig, with Hydra. No other room knows of Hydra.

    command line  --arguments-->  GROUP=NAME and FIELD=VALUE, for each job of a sweep
                  --compose-->    the settings that these and conf/*.yaml give
                  --checkpoint--> with those of the model, if only its path was given
                  -->             JobConfig  -->  the job

`jobs.py` has what these give, also for `jobs.submit`, which takes settings of Slurm beside a job's;
`names.py` says which field a wrong name means, `own_files.py` reads a user's own YAML files,
`sweep.py` gives the runs of a sweep folders of their own and prints their table.

Every rank composes its own config. Only rank 0 prints.
"""

import sys
import time
from collections.abc import Callable
from typing import NoReturn

from engine.errors import UserError
from pipeline.config.job import JobConfig
from pipeline.launch.arguments import read_arguments
from pipeline.launch.checkpoint import model_option
from pipeline.launch.compose import composing, jobs_of, options, show
from pipeline.launch.jobs import ComposedJob, compose_job, composed_jobs
from pipeline.launch.sweep import Sweep, printed_table
from pipeline.slurm.this_start import record_stopped
from pipeline.stats.clock import process_age_s
from pipeline.workers.last_words import bug_report, say_stopped
from pipeline.workers.ranks import this_worker

__all__ = ["ComposedJob", "Job", "composed_jobs", "launch", "options", "say_and_exit"]

SILENCE_S = 30.0
"""Seconds that ranks above 0 hold their message back when the command line is wrong: rank 0 prints
the same message and ends, and then the launcher ends the others."""

Job = Callable[[JobConfig, int, float], None]
"""Called with the config, the job's number in a sweep (else 0), and the seconds since the process
started (0 for later jobs of a sweep)."""


def launch(job: Job) -> None:
    """Run `job` with the config of the command line: once, or once for each job of a sweep. If
    there are flags such as --help, show what they ask for instead."""
    rank = this_worker().rank
    try:
        line = read_arguments(sys.argv[1:])
        jobs = jobs_of(line)
        with composing(line) as composer:
            if line.flags:
                option = model_option(composer.compose(jobs[0]), line)
            else:
                composed = [compose_job(composer, line, *its) for its in enumerate(jobs)]
                sweep = Sweep.of([config for config, _ in composed], jobs)
    except Exception as error:
        is_users = isinstance(error, UserError)
        raise stopped(str(error) if is_users else bug_report(error), rank) from error
    if not line.flags:
        run_jobs(job, sweep, [note for _, note in composed])
    elif rank == 0:
        show(line, option)


def run_jobs(job: Job, sweep: Sweep, notes: list[str | None]) -> None:
    """Run the jobs one after another. `notes` are what is said of each before it begins."""
    is_first = this_worker().is_first
    with printed_table(sweep, is_first and len(sweep.configs) > 1):
        for number, (config, note) in enumerate(zip(sweep.configs, notes, strict=True)):
            if note and is_first:
                print(note, file=sys.stderr, flush=True)
            job(config, number, 0.0 if number else process_age_s())


def say_and_exit(
    message: str, rank: int, to_launcher: bool = True, is_faulty: bool = True
) -> NoReturn:
    """Stop a job in which all ranks fail for the same reason."""
    raise stopped(message, rank, to_launcher, is_faulty)


def stopped(
    message: str, rank: int, to_launcher: bool = True, is_faulty: bool = True
) -> SystemExit:
    """The exit of a job in which all ranks fail for the same reason: rank 0 says it, and the
    launcher ends the others while they hold their message back. `is_faulty`: the job is at fault,
    which a supervisor on Slurm must know (it may know it already)."""
    if rank:
        time.sleep(SILENCE_S)
    elif is_faulty:
        record_stopped(message, rank, is_final=True)
    say_stopped(message, to_launcher=to_launcher)
    return SystemExit(1)
