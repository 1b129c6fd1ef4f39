"""Turn the command line into a JobConfig, with Hydra. No other module knows of Hydra.

    command line + conf/*.yaml  --Hydra-->  DictConfig  --read_config-->  JobConfig  -->  the job

The YAML files directly in conf/ are the ready jobs (the options of group `conf`), except run.yaml,
the root config. Configs name files that come with the packages as `${packaged:jobs/demo/model}`, a
path relative to the folder that holds pipeline/, so they are found from any working directory.

Every rank composes its own config. Only rank 0 prints what Hydra says (help, errors).
"""

import atexit
import contextlib
import io
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.errors import UserError
from engine.from_dict import defaults_of
from engine.model.defaults import PACKAGES, conf_folder
from pipeline.config.job import COMPONENTS, SECTIONS, JobConfig, job_config
from pipeline.stats.clock import process_age_s
from pipeline.workers.ranks import this_worker

ROOT = "run"
NAMELESS = "runs/None"
"""The value of run.yaml's default `output` without conf=NAME."""
GROUPS = ("model", "decoding", "cache", "engine")
SILENCE_S = 30.0
"""Seconds that ranks above 0 hold their message back when the command line is wrong: rank 0 prints
the same message and ends, and then the launcher ends the others."""

Job = Callable[[JobConfig, int, float], None]
"""Called with the config, the job's number in a sweep (else 0), and the seconds since the process
started (0 for later jobs of a sweep)."""


def options(group: str = "") -> list[str]:
    """The names that GROUP=NAME accepts; without a group, the ready jobs (conf=NAME)."""
    names = (file.stem for file in (conf_folder() / group).glob("*.yaml"))
    return sorted(name for name in names if group or name != ROOT)


def launch(job: Job) -> None:
    """Run `job` with the config of the command line: once, or once for each job of a sweep.

    What Hydra itself writes to stderr is held back, so that `explain_hydra_error` can improve it.
    """
    rank, out, err = this_worker().rank, sys.stdout, sys.stderr
    hydra_stderr = io.StringIO()

    def task(cfg: DictConfig) -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                config = read_config(cfg)
            except UserError as error:
                say_and_exit(str(error), rank)
            number = job_number()
            job(config, number, 0.0 if number else process_age_s())

    _register()
    main = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=ROOT)(task)
    try:
        discarded = io.StringIO()
        with (
            contextlib.redirect_stderr(hydra_stderr),
            contextlib.redirect_stdout(discarded if rank else out),
        ):
            main()
    except SystemExit as stop:
        if stop.code and hydra_stderr.getvalue():
            say_and_exit(explain_hydra_error(hydra_stderr.getvalue()), rank)
        raise


def read_config(cfg: DictConfig) -> JobConfig:
    """Turn what Hydra composed into a JobConfig.

    Raises:
        UserError: neither a ready job nor input data was given, or a field is wrong.
    """
    if cfg.name is None and OmegaConf.is_missing(cfg.data, "path"):
        ready = ", ".join(f"conf={name}" for name in options())
        raise UserError(
            f"conf=null: choose a ready job ({ready}), or give your own data with "
            "data.path=FILE output=FOLDER"
        )
    try:
        raw: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error).strip()) from error
    if raw["name"] is None and raw["output"] == NAMELESS:
        raise UserError("output is missing: without conf=NAME, give the run folder, output=FOLDER")
    return job_config(raw)


def job_number() -> int:
    """The job's number in a sweep, from 0; 0 outside a sweep."""
    hydra_job = HydraConfig.get().job
    return 0 if OmegaConf.is_missing(hydra_job, "num") else hydra_job.num


def explain_hydra_error(message: str) -> str:
    """Hydra's message without its advice on debugging. If it is about an unknown field, our own
    message instead, which also lists the fields that exist."""
    for advice in ("Set the environment variable HYDRA_FULL_ERROR", "Config search path"):
        message = message.split(advice)[0]
    unknown = re.search(r"Could not override '([\w.@/]+)'", message)
    if unknown is None:
        return message.strip()
    return f"{unknown[1]}: no such field; {_fields_of(unknown[1].rpartition('.')[0])}"


def _fields_of(section: str) -> str:
    """The fields of a section, such as `data` or `engine.soft`; '' is the root config."""
    if section in SECTIONS:
        return f"{section} has {', '.join(defaults_of(SECTIONS[section]))}"
    outer, _, inner = section.partition(".")
    within = defaults_of(SECTIONS[outer]).get(inner) if outer in SECTIONS else None
    if isinstance(within, dict):
        return f"{section} has {', '.join(within)}"
    if section in COMPONENTS:
        choices = (
            f"with {section}={name} {', '.join(defaults_of(cls)) or 'no field'}"
            for name, cls in COMPONENTS[section].items()
        )
        return f"{section} has {'; '.join(choices)}"
    scalars = [name for name in defaults_of(JobConfig) if name not in (*GROUPS, "name")]
    return f"there are the groups conf, {', '.join(GROUPS)} and the fields {', '.join(scalars)}"


def say_and_exit(message: str, rank: int) -> NoReturn:
    """Stop a job in which all ranks fail for the same reason: rank 0 prints it, and the launcher
    ends the others while they hold their message back."""
    if rank:
        time.sleep(SILENCE_S)
    print(f"pipeline.run stopped: {message}", file=sys.__stderr__, flush=True)
    raise SystemExit(1)


def _register() -> None:
    """Register with Hydra the fields and their defaults, the ready jobs, and our resolvers."""
    store = ConfigStore.instance()
    root = {name: value for name, value in defaults_of(JobConfig).items() if name not in GROUPS}
    root |= {name: defaults_of(cls) for name, cls in SECTIONS.items() if name not in GROUPS}
    store.store(name="schema", node=root)
    for name in options():
        file = conf_folder() / f"{name}.yaml"
        store.store(
            group="conf",
            name=name,
            node=OmegaConf.load(file),
            package="_global_",
            provider=str(file),
        )
    OmegaConf.register_new_resolver("packaged", lambda path: str(PACKAGES / path), replace=True)
    OmegaConf.register_new_resolver("scratch", _scratch, use_cache=True, replace=True)


def _scratch() -> str:
    """A temporary folder for the file that Hydra writes in a sweep, so that the working directory
    stays clean. Removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="hydra-sweep-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
