"""From GROUP=NAME and FIELD=VALUE to the settings of one job, with Hydra.

The YAML files directly in conf/ are the ready jobs (the options of group `conf`), except run.yaml
and submit.yaml, the root configs of pipeline.run and jobs.submit. Configs name files that come with
the packages as `${packaged:jobs/demo/model}`, a path relative to the folder that holds pipeline/,
so they are found from any working directory. --config-dir=FOLDER adds the files of a folder that is
laid out like conf/ (own_files.py).
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from engine.errors import UserError
from engine.from_dict import defaults_of
from engine.model.defaults import PACKAGES, conf_folder
from pipeline.config.fields import GROUPS
from pipeline.config.job import SECTIONS, JobConfig
from pipeline.config.slurm import SlurmConfig
from pipeline.launch.arguments import CommandLine
from pipeline.launch.names import fields_of
from pipeline.launch.own_files import OwnFiles
from pipeline.launch.programs import ROOTS, SLURM, Program

NO_MODEL = "autoregressive"
"""The option of group `model` of a job that runs no diffusion model; it sets nothing."""


def options(group: str = "") -> list[str]:
    """The names that GROUP=NAME accepts; without a group, the ready jobs (conf=NAME)."""
    names = (file.stem for file in (conf_folder() / group).glob("*.yaml"))
    return sorted(name for name in names if group or name not in ROOTS)


@dataclass(frozen=True, slots=True)
class Composer:
    """Composes the jobs of one command line."""

    own: OwnFiles
    program: Program

    def compose(self, overrides: Sequence[str], number: int = 0) -> DictConfig:
        """The settings, with `hydra` among them. `number` is the job's number in a sweep.

        Raises:
            UserError: an option or field does not exist, or has a value that cannot be read.
        """
        try:
            every = [*self.own.overrides, *overrides]
            cfg = hydra.compose(self.program.root, every, return_hydra_config=True)
        except MissingConfigException as error:
            raise UserError(self._no_such_option(error)) from error
        except HydraException as error:
            raise UserError(self._explained(error, overrides)) from error
        with open_dict(cfg):
            cfg.hydra.job.num = number
        HydraConfig.instance().set_config(cfg)
        return cfg

    def _no_such_option(self, error: MissingConfigException) -> str:
        group, _, name = str(error.missing_cfg_file).partition("/")
        if group not in (*self.program.groups, "conf"):
            return str(error).split("\nConfig search path")[0].strip()
        known = options("" if group == "conf" else group) + self.own.options(group)
        close = get_close_matches(name, known, n=1)
        did_you = f"did you mean {group}={close[0]}? " if close else ""
        place = "".join(f" and {folder}" for folder in self.own.folders(group))
        if name.endswith((".yaml", ".yml")) and group == "conf":
            file = Path(name)
            return f"conf={name}: write --config-dir={file.parent} conf={file.stem}"
        return f"{group}={name}: no such option; {did_you}conf/{place} has {', '.join(known)}"

    def _explained(self, error: HydraException, overrides: Sequence[str]) -> str:
        """Hydra's message without its advice; for a field that the chosen option lacks, its
        fields."""
        message = str(error).split("\nConfig search path")[0].strip()
        unknown = re.search(r"Could not override '([\w.@/]+)'", message)
        if unknown is None:
            return message
        name = unknown[1]
        typed = next((its for its in overrides if its.startswith(f"{name}=")), name)
        return f"{typed}: no such field; {fields_of(name.rpartition('.')[0], self.program)}"


def jobs_of(line: CommandLine) -> list[list[str]]:
    """The overrides of each job: one, or with -m one for each combination of values.

    Raises:
        UserError: a sweep that has no end.
    """
    if not line.is_sweep:
        return [line.overrides]
    choices = []
    for override in OverridesParser.create().parse_overrides(line.overrides):
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices.append([f"{key}={override.get_value_element_as_str()}"])
        elif override.is_choice_sweep() and hasattr(override.value(), "include"):
            choices.append([f"{key}={name}" for name in _matching(override.value(), key)])
        elif override.is_discrete_sweep():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            raise UserError(f"{override.input_line}: give values, as in {key}=1,2")
    return [list(chosen) for chosen in product(*choices)]


@contextmanager
def composing(line: CommandLine) -> Iterator[Composer]:
    """Inside, jobs can be composed.

    Raises:
        UserError: --config-dir is no folder, or a file in it cannot be used.
    """
    own = OwnFiles.of(line.config_dir, line.overrides, line.program)
    own.check()
    _register(own, line.program)
    folder = str(conf_folder())
    with hydra.initialize_config_dir(folder, job_name=line.program.name, version_base="1.3"):
        yield Composer(own, line.program)


def as_plain(cfg: DictConfig) -> dict[str, Any]:
    """The settings as plain values, without those of Hydra.

    Raises:
        UserError: a `${...}` stands for nothing, or a field has no value.
    """
    with open_dict(cfg):
        del cfg["hydra"]
    try:
        raw: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(_unresolved(cfg, error)) from error
    plain: dict[str, Any] = raw
    return plain


def show(line: CommandLine, option: str | None, named: Sequence[str]) -> None:
    """What Hydra shows for --help, --cfg and the like, with this option of the group model and what
    `settings` adds."""
    folder = [] if line.config_dir is None else [f"--config-dir={line.config_dir}"]
    model = [] if option is None else [f"model={option}"]
    argv = [line.program.name, *line.flags, *folder, *model, *named, *line.overrides]
    root, place = line.program.root, str(conf_folder())
    main = hydra.main(version_base="1.3", config_path=place, config_name=root)
    with mock.patch.object(sys, "argv", argv):
        main(lambda _: None)()


def _unresolved(cfg: DictConfig, error: OmegaConfBaseException) -> str:
    reason, name = str(error).strip().splitlines()[0], error.full_key
    if not name:
        return reason
    if "Missing mandatory value" in reason:
        return f"{name} is missing: give it a value"
    raw = OmegaConf.to_container(cfg, resolve=False)
    for key in re.findall(r"[^.\[\]]+", name):
        raw = raw[int(key) if isinstance(raw, list) else key]  # type: ignore[index]
    return (
        f"{name}={raw}: {reason}. ${{FIELD}} stands for another field's value; for the characters "
        r"themselves write \${"
    )


def _matching(glob: Any, group: str) -> list[str]:
    matching: list[str] = glob.filter(options("" if group == "conf" else group))
    return matching


def _register(own: OwnFiles, program: Program) -> None:
    """Register with Hydra the fields and their defaults, the ready jobs, the user's own clusters,
    and our resolver."""
    store = ConfigStore.instance()
    root = {name: value for name, value in defaults_of(JobConfig).items() if name not in GROUPS}
    # Of the groups, only `model` may be left without an option.
    root |= {name: defaults_of(cls) for name, cls in SECTIONS.items() if name != "engine"}
    if program.takes_slurm:
        root[SLURM] = defaults_of(SlurmConfig)
    store.store(name="schema", node=root)
    store.store(group="model", name=NO_MODEL, node={}, package="_global_")
    for group in ("conf", SLURM):
        store.repo.get(group, {}).clear()  # of an earlier call in this process
    for file in own.clusters():
        store.store(group=SLURM, name=file.stem, node=OmegaConf.load(file), provider=str(file))
    ready = {name: conf_folder() / f"{name}.yaml" for name in options()}
    for name, file in (ready | own.jobs()).items():
        store.store(
            group="conf",
            name=name,
            node=OmegaConf.load(file),
            package="_global_",
            provider=str(file),
        )
    OmegaConf.register_new_resolver("packaged", lambda path: str(PACKAGES / path), replace=True)
