"""YAML files of a user's own: --config-dir=FOLDER, a folder that is laid out like conf/.

FOLDER/NAME.yaml          conf=NAME, a ready job; its settings are those of the whole job
FOLDER/GROUP/NAME.yaml    GROUP=NAME; its settings are those of the group, or, below the line
                          `# @package _global_`, of the whole job

A user's clusters may also stand in ~/.config/dllm-pipeline/slurm/NAME.yaml ($XDG_CONFIG_HOME in
place of ~/.config), where jobs.submit finds them without a flag: slurm=NAME.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.errors import UserError
from engine.model.defaults import conf_folder
from pipeline.config.fields import GROUPS, slurm_fields
from pipeline.config.job import COMPONENTS, SECTIONS
from pipeline.launch.arguments import as_literal
from pipeline.launch.names import no_such_field
from pipeline.launch.programs import RUN, SLURM, SUBMIT, Program

HEAD = "# @package _global_"


@dataclass(frozen=True, slots=True)
class OwnFiles:
    folder: Path | None
    """None if there is no --config-dir."""
    named: frozenset[str] = frozenset()
    """The words on the command line. Only the files that it names are read: the folder may hold
    others, which are none of ours."""
    program: Program = RUN

    @classmethod
    def of(
        cls, config_dir: str | None, overrides: Sequence[str], program: Program = RUN
    ) -> "OwnFiles":
        folder = None if config_dir is None else Path(config_dir).expanduser().absolute()
        return cls(folder, frozenset(_words(" ".join(overrides))), program)

    @property
    def overrides(self) -> list[str]:
        """What tells Hydra of the folder."""
        if self.folder is None:
            return []
        return [f"hydra.searchpath=[{as_literal(f'file://{self.folder}')}]"]

    def options(self, group: str) -> list[str]:
        """The names that the folders add to a group, or, for "conf", to the ready jobs."""
        return sorted({file.stem for file in self._files(group)})

    def folders(self, group: str) -> list[Path]:
        """Where files of a group may stand."""
        standing = [clusters_folder()] if group == SLURM and clusters_folder().is_dir() else []
        return [*([] if self.folder is None else [self.folder]), *standing]

    def jobs(self) -> dict[str, Path]:
        """The ready jobs that stand in the folder itself, and that the command line names."""
        files = [file for file in self._files("conf") if file.parent == self.folder]
        return {file.stem: file for file in files if file.stem in self.named}

    def clusters(self) -> list[Path]:
        """The clusters that stand in the user's own folder, which Hydra does not search."""
        return sorted(clusters_folder().glob("*.yaml")) if self.program.takes_slurm else []

    def check(self) -> None:
        """
        Raises:
            UserError: there is no such folder, or a file that the job names has the name of one of
                ours, or would not do what it says.
        """
        if self.folder is not None and not self.folder.is_dir():
            raise UserError(f"--config-dir={self.folder}: no such folder")
        for file in self.clusters():  # Hydra reads all of them, so one that is broken stops it
            _read(file)
        jobs = [file for file in self._files("conf") if file.stem in self.named]
        texts = [file.read_text(errors="replace") for file in jobs]
        named = self.named.union(*map(_words, texts))
        for group in ("conf", *self.program.groups):
            taken = {file.stem: file for file in _ours(group)}
            for file in self._files(group):
                if file.stem not in named:
                    continue
                if before := taken.get(file.stem):
                    raise UserError(f"{file}: {before} has this name; give the file another")
                if group != "conf":
                    taken[file.stem] = file
                _check(file, _read(file), group, needs_head=file.parent != self.folder)

    def _files(self, group: str) -> list[Path]:
        """Ready jobs stand in the folder itself, or in FOLDER/conf, which is where Hydra has
        them."""
        files = self.clusters() if group == SLURM else []
        if self.folder is not None:
            files += (self.folder / group).glob("*.yaml")
            files += self.folder.glob("*.yaml") if group == "conf" else []
        return sorted(files)


def clusters_folder() -> Path:
    """Where a user's own clusters stand."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "dllm-pipeline" / SLURM


def _ours(group: str) -> list[Path]:
    return list((conf_folder() / ("" if group == "conf" else group)).glob("*.yaml"))


def _check(file: Path, raw: dict[str, Any], group: str, needs_head: bool) -> None:
    """
    Raises:
        UserError: the file sets other sections than its group's, but lacks the line that says so,
            or an entry of its list `defaults` overrides nothing.
    """
    if group == SLURM:
        _check_cluster(file, raw)
        return
    others = [key for key in raw if group == "conf" or key in (*SECTIONS, *COMPONENTS)]
    if needs_head and others and not _has_head(file):
        raise UserError(
            f"{file}: sets {', '.join(others)} of the whole job, but its settings are taken for "
            f"those of {group}; put the line `{HEAD}` at its head"
        )
    for entry in raw.get("defaults") or []:
        for key, name in entry.items() if isinstance(entry, dict) else ():
            if key.lstrip("/") in GROUPS:
                raise UserError(
                    f"{file}: `{key}: {name}` in its defaults; write `override /{key.lstrip('/')}: "
                    f"{name}`, since every job has that group already"
                )


def _check_cluster(file: Path, raw: dict[str, Any]) -> None:
    """
    Raises:
        UserError: a field does not exist, or is text that YAML reads as a number: 24:00:00 would
            be 86400, which Slurm takes for minutes.
    """
    for key, value in raw.items():
        field = slurm_fields().get(f"{SLURM}.{key}")
        if key == "defaults":
            continue
        if field is None:
            raise UserError(f"{file}: {no_such_field(f'{SLURM}.{key}', str(value), SUBMIT)}")
        is_number = isinstance(value, int | float)
        if field.takes_text and is_number and key != "memory":
            raise UserError(f'{file}: {key}: is read as {value}; put it in quotes, {key}: "..."')


def _has_head(file: Path) -> bool:
    comments = (line for line in file.read_text().splitlines() if line.startswith("#"))
    return any(line.lstrip("# ").split() == HEAD.split()[1:] for line in comments)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w.-]+", text)


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(
            f"{file}: give fields, such as partition: gpu"
            if file.parent.name == SLURM
            else f"{file}: give sections of fields, such as data: with path: below it"
        )
    return raw
