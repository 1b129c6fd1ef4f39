"""The jobs of a command line: of pipeline.run, and of jobs.submit with the settings of Slurm."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from upath import UPath

from engine.errors import UserError
from pipeline.config.fields import PATHS
from pipeline.config.job import SECTIONS, JobConfig, job_config
from pipeline.config.slurm import SlurmConfig, slurm_config
from pipeline.launch.arguments import CommandLine, as_literal, read_arguments
from pipeline.launch.checkpoint import check_model_is_chosen, model_option, settings_taken
from pipeline.launch.compose import Composer, as_plain, composing, jobs_of, options, show
from pipeline.launch.names import fields_of
from pipeline.launch.programs import SLURM, SUBMIT
from pipeline.launch.sweep import Sweep
from pipeline.run_folder.files import place

NAMELESS = "runs/None"
"""The value of run.yaml's default `output` without conf=NAME."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedJob:
    """A job that is to be submitted."""

    config: JobConfig
    """Its `output` is absolute."""
    slurm: SlurmConfig
    words: list[str]
    """Arguments with which pipeline.run runs this job alone, from the same working folder."""
    typed: list[str]
    """Arguments with which jobs.submit submits this job alone."""
    note: str | None
    """What to say of settings that nobody has typed."""


def composed_jobs(argv: Sequence[str]) -> list[ComposedJob]:
    """The jobs of a command line of jobs.submit: one, or those of a sweep.

    Raises:
        UserError: the command line, or a job, is wrong.
        SystemExit: a flag such as --help has been given, and what it shows is printed.
    """
    line = read_arguments(argv, SUBMIT)
    jobs = jobs_of(line)
    with composing(line) as composer:
        if not line.flags:
            composed = [_submitted(composer, line, *its) for its in enumerate(jobs)]
        else:
            option = model_option(composer.compose(jobs[0]), line)
    if line.flags:
        show(line, option)
        raise SystemExit(0)
    sweep = Sweep.of([config for config, _, _ in composed], jobs)
    folder = [] if line.config_dir is None else [f"--config-dir={Path(line.config_dir).absolute()}"]
    found = []
    for config, (_, slurm, note), job in zip(sweep.configs, composed, jobs, strict=True):
        output = f"output={as_literal(config.output)}"
        typed = [*folder, *(its for its in job if not its.startswith("output=")), output]
        words = [its for its in typed if not its.startswith((f"{SLURM}=", f"{SLURM}."))]
        found.append(ComposedJob(config=config, slurm=slurm, words=words, typed=typed, note=note))
    return found


def compose_job(
    composer: Composer, line: CommandLine, number: int, overrides: list[str]
) -> tuple[JobConfig, str | None]:
    """One job of pipeline.run, and what to say about settings that nobody has typed.

    Raises:
        UserError: neither a ready job nor input data was given, no model, or a field is wrong.
    """
    cfg, option = _composed(composer, line, number, overrides)
    choices = cfg.hydra.runtime.choices
    config = read_config(as_plain(cfg))
    return config, None if option is None else settings_taken(option, config, choices)


def _submitted(
    composer: Composer, line: CommandLine, number: int, overrides: list[str]
) -> tuple[JobConfig, SlurmConfig, str | None]:
    """
    Raises:
        UserError: as compose_job, or nothing says where Slurm is to run the job.
    """
    cfg, option = _composed(composer, line, number, overrides)
    if not any(its.startswith((f"{SLURM}=", f"{SLURM}.")) for its in overrides):
        known = (f"slurm={name}" for name in options(SLURM) + composer.own.options(SLURM))
        raise UserError(
            f"slurm is missing: choose a cluster, {', '.join(known)}; or give fields of it, such "
            "as slurm.partition=NAME slurm.gpus_per_node=8"
        )
    choices = cfg.hydra.runtime.choices
    raw = as_plain(cfg)
    slurm = slurm_config(raw.pop(SLURM))
    config = read_config(raw)
    config = replace(config, output=_absolute(config.output))
    return config, slurm, None if option is None else settings_taken(option, config, choices)


def _composed(
    composer: Composer, line: CommandLine, number: int, overrides: list[str]
) -> tuple[DictConfig, str | None]:
    """The settings of a job, and the option of group `model` that it took by itself, if any.

    Raises:
        UserError: neither a ready job nor input data was given, or no model.
    """
    cfg = composer.compose(overrides, number)
    _check_sections(cfg)
    if cfg.hydra.runtime.choices.conf is None and OmegaConf.is_missing(cfg.data, "path"):
        ready = ", ".join(f"conf={name}" for name in options())
        raise UserError(
            f"conf=null: choose a ready job ({ready}), or give your own data with "
            "data.path=FILE output=FOLDER"
        )
    option = model_option(cfg, line)
    if option is not None:
        cfg = composer.compose([f"model={option}", *overrides], number)
    check_model_is_chosen(cfg, options("model"))
    return cfg, option


def _check_sections(cfg: DictConfig) -> None:
    """
    Raises:
        UserError: a section was given a value as if it were a field.
    """
    for section in (*SECTIONS, SLURM):
        if section in cfg and not OmegaConf.is_dict(cfg[section]):
            raise UserError(
                f"{section}={cfg[section]}: give its fields, as {section}.FIELD=VALUE; "
                f"{fields_of(section, SUBMIT)}"
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


def _absolute(output: str) -> str:
    """The run folder as every node finds it; an address on a store as it is."""
    return output if isinstance(place(output), UPath) else os.path.abspath(output)
