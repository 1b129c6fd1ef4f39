"""Turn the command line into a JobConfig, with Hydra. No other room knows of Hydra.

    command line  --arguments-->  GROUP=NAME and FIELD=VALUE, for each job of a sweep
                  --compose-->    the settings that these and conf/*.yaml give
                  --checkpoint--> with those of the model, if only its path was given
                  -->             JobConfig  -->  the job

`names.py` says which field a wrong name means (`foreign.py`: other projects' names), `own_files.py`
reads a user's own YAML files, `named_settings.py` says what settings=NAME adds, `rival.py` leaves
out what does not apply to engine=transformers, `sweep.py` gives the runs of a sweep folders of
their own and prints their table. `programs.py`: pipeline.run, and jobs.submit, which takes the
group `slurm` beside all this (`to_submit.py`).

Every rank composes its own config. Only rank 0 prints.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from engine.errors import UserError
from pipeline.config.fields import PATHS
from pipeline.config.job import SECTIONS, JobConfig, job_config
from pipeline.launch import rival
from pipeline.launch.arguments import CommandLine, read_arguments
from pipeline.launch.checkpoint import check_model_is_chosen, model_option, settings_taken
from pipeline.launch.compose import NO_MODEL, Composer, as_plain, composing, jobs_of, options, show
from pipeline.launch.named_settings import SETTINGS, named_overrides
from pipeline.launch.names import fields_of
from pipeline.launch.programs import SLURM
from pipeline.launch.sweep import Sweep, printed_table
from pipeline.slurm.this_start import record_stopped
from pipeline.stats.clock import process_age_s
from pipeline.workers.last_words import bug_report, say_stopped
from pipeline.workers.ranks import this_worker

__all__ = ["Job", "launch", "options", "say_and_exit"]

NAMELESS = "runs/None"
"""The value of run.yaml's default `output` without conf=NAME."""
SILENCE_S = 30.0
"""Seconds that ranks above 0 hold their message back when the command line is wrong: rank 0 prints
the same message and ends, and then the launcher ends the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """One job of a command line."""

    config: JobConfig
    note: str | None
    """What to say about settings that nobody has typed."""
    slurm: dict[str, Any]
    """The fields of SlurmConfig that jobs.submit has for it; {} for pipeline.run."""
    overrides: list[str]
    """Its GROUP=NAME and FIELD=VALUE, such that Hydra's grammar can read them."""


Job = Callable[[JobConfig, int, float], None]
"""Called with the config, the job's number in a sweep (else 0), and the seconds since the process
started (0 for later jobs of a sweep)."""


def launch(job: Job) -> None:
    """Run `job` with the config of the command line: once, or once for each job of a sweep. If
    there are flags such as --help, show what they ask for instead."""
    rank = this_worker().rank
    try:
        line = read_arguments(sys.argv[1:])
        sweep = compose_all(line, may_show=rank == 0)
    except Exception as error:
        is_users = isinstance(error, UserError)
        raise stopped(str(error) if is_users else bug_report(error), rank) from error
    if sweep is not None:
        run_jobs(job, *sweep)


def compose_all(line: CommandLine, may_show: bool = True) -> tuple[Sweep, list[Composed]] | None:
    """The jobs of a command line, each with an output of its own. With flags such as --help: None,
    after showing what they ask for.

    Raises:
        UserError: see compose_job.
    """
    jobs = jobs_of(line)
    with composing(line) as composer:
        if line.flags:
            cfg = composer.compose(jobs[0])
            option = NO_MODEL if rival.is_rival(cfg) else model_option(cfg, line)
            named = named_overrides(cfg, line)
        else:
            composed = [compose_job(composer, line, *its) for its in enumerate(jobs)]
    if line.flags:
        if may_show:
            show(line, option, named)
        return None
    return Sweep.of([its.config for its in composed], jobs), composed


def run_jobs(job: Job, sweep: Sweep, composed: list[Composed]) -> None:
    """Run the jobs one after another."""
    is_first = this_worker().is_first
    with printed_table(sweep, is_first and len(sweep.configs) > 1):
        for number, (config, its) in enumerate(zip(sweep.configs, composed, strict=True)):
            if its.note and is_first:
                print(its.note, file=sys.stderr, flush=True)
            job(config, number, 0.0 if number else process_age_s())


def compose_job(
    composer: Composer, line: CommandLine, number: int, overrides: list[str]
) -> Composed:
    """One job of a command line.

    Raises:
        UserError: neither a ready job nor input data was given, no model, or a field is wrong.
    """
    cfg = composer.compose(overrides, number)
    _check_sections(cfg)
    if cfg.hydra.runtime.choices.conf is None and OmegaConf.is_missing(cfg.data, "path"):
        ready = ", ".join(f"conf={name}" for name in options())
        raise UserError(
            f"conf=null: choose a ready job ({ready}), or give your own data with "
            "data.path=FILE output=FOLDER"
        )
    option = None
    if rival.is_rival(cfg):
        cfg = composer.compose(rival.of_rival(cfg, overrides), number)
    elif (option := model_option(cfg, line)) is not None:
        cfg = composer.compose([f"model={option}", *overrides], number)
    if named := named_overrides(cfg, line):
        model = [] if option is None else [f"model={option}"]
        cfg = composer.compose([*model, *named, *overrides], number)
    check_model_is_chosen(cfg, options("model"))
    choices = cfg.hydra.runtime.choices
    raw = as_plain(cfg) | {SETTINGS: choices.get(SETTINGS)}
    slurm = raw.pop(SLURM, {})
    config = read_config(raw)
    note = None if option is None else settings_taken(option, config, choices)
    if config.is_autoregressive:
        note = rival.note_of(config)
    return Composed(config=config, note=note, slurm=slurm, overrides=overrides)


def _check_sections(cfg: DictConfig) -> None:
    """
    Raises:
        UserError: a section was given a value as if it were a field.
    """
    for section in SECTIONS:
        if section in cfg and not OmegaConf.is_dict(cfg[section]):
            raise UserError(
                f"{section}={cfg[section]}: give its fields, as {section}.FIELD=VALUE; "
                f"{fields_of(section)}"
            )


def read_config(raw: dict[str, Any]) -> JobConfig:
    """
    Raises:
        UserError: the run folder is missing, or a field is wrong.
    """
    if raw["name"] is None and raw["output"] == NAMELESS:
        raise UserError("output is missing: without conf=NAME, give the run folder, output=FOLDER")
    for name in PATHS:
        section, _, field = name.rpartition(".")
        where = raw[section] if section else raw
        where[field] = at_home(where[field])
    return job_config(raw)


def at_home(path: Any) -> Any:
    """The path, or paths, with the user's home folder for `~`."""
    if isinstance(path, list):
        return [at_home(its) for its in path]
    return os.path.expanduser(path) if isinstance(path, str) else path


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
