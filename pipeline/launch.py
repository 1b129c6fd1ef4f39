"""From a command line to a JobConfig: Hydra is here, and nothing behind this file sees it.

The files right in conf/ are the ready jobs, options of group `conf` (run.yaml, the root, apart).
The conf folder is pipeline/conf in an installed wheel and beside pipeline/ in a checkout or
editable install. Files that come with the packages are named `${packaged:jobs/demo/model}`, which
is a place beside pipeline/ too, so they are found from any working directory.

Every worker composes for itself; what Hydra prints meanwhile (help, errors) rank 0 says once.
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
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.from_dict import defaults_of
from pipeline.config.job import COMPONENTS, SECTIONS, JobConfig, job_config
from pipeline.stats.clock import process_age_s
from pipeline.workers.ranks import this_worker

ROOT = "run"
PACKAGES = Path(__file__).resolve().parent.parent
NAMELESS = "runs/None"
"""What run.yaml's default output comes to without conf=NAME."""
GROUPS = ("model", "decoding", "cache", "engine")
SILENCE_S = 30.0
"""How long ranks above 0 leave the word to rank 0 when the command line is wrong."""

Job = Callable[[JobConfig, int, float], None]
"""Called with the config, its number in a sweep, and the seconds that the process took until the
first."""


def conf_folder() -> Path:
    for folder in (PACKAGES / "pipeline" / "conf", PACKAGES / "conf"):
        if (folder / f"{ROOT}.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no conf/{ROOT}.yaml in or beside {PACKAGES / 'pipeline'}: install again"
    )


def options(group: str = "") -> list[str]:
    """The names that `group=` takes; without a group, those that `conf=` takes."""
    names = (file.stem for file in (conf_folder() / group).glob("*.yaml"))
    return sorted(name for name in names if group or name != ROOT)


def launch(job: Job) -> None:
    """Run `job` as the command line says: once, or once for each job of a sweep."""
    rank, out, err = this_worker().rank, sys.stdout, sys.stderr
    said = io.StringIO()

    def task(cfg: DictConfig) -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                config = read(cfg)
            except ValueError as error:
                say_and_exit(str(error), rank)
            number = job_number()
            job(config, number, 0.0 if number else process_age_s())

    _register()
    main = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=ROOT)(task)
    try:
        unheard = io.StringIO()
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(unheard if rank else out),
        ):
            main()
    except SystemExit as stop:
        if stop.code and said.getvalue():
            say_and_exit(explained(said.getvalue()), rank)
        raise


def read(cfg: DictConfig) -> JobConfig:
    """The JobConfig of what Hydra composed.

    Raises:
        ValueError: no ready job was chosen, or the config is wrong.
    """
    if cfg.name is None and OmegaConf.is_missing(cfg.data, "path"):
        ready = ", ".join(f"conf={name}" for name in options())
        raise ValueError(
            f"conf=null: choose a ready job ({ready}), or give your own data with "
            "data.path=FILE output=FOLDER"
        )
    try:
        raw: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(str(error).strip()) from error
    if raw["name"] is None and raw["output"] == NAMELESS:
        raise ValueError("output is missing: without conf=NAME, give the run folder, output=FOLDER")
    return job_config(raw)


def job_number() -> int:
    """0 outside a sweep."""
    hydra_job = HydraConfig.get().job
    return 0 if OmegaConf.is_missing(hydra_job, "num") else hydra_job.num


def explained(message: str) -> str:
    """Hydra's own message, and the list that it leaves out: the fields that do exist."""
    for sign in ("Set the environment variable HYDRA_FULL_ERROR", "Config search path"):
        message = message.split(sign)[0]
    unknown = re.search(r"Could not override '([\w.@/]+)'", message)
    if unknown is None:
        return message.strip()
    return f"{unknown[1]}: no such field; {_fields_of(unknown[1].rpartition('.')[0])}"


def _fields_of(section: str) -> str:
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
    """Stop a job whose workers all fail alike: rank 0 says why, its launcher ends the others."""
    if rank:
        time.sleep(SILENCE_S)
    print(f"pipeline.run stopped: {message}", file=sys.__stderr__, flush=True)
    raise SystemExit(1)


def _register() -> None:
    """Tell Hydra the fields with their defaults, the ready jobs, and how paths are found."""
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
    """A folder for the file that Hydra writes in a sweep; gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="hydra-sweep-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
