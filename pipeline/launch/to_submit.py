"""The jobs of a command line of jobs.submit: what each does, and where Slurm runs it.

`slurm=` and `slurm.FIELD=` are for the submission alone; all else goes on to pipeline.run, which
composes the job on the nodes as it was composed here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from pipeline.config.job import JobConfig
from pipeline.config.slurm import SlurmConfig, slurm_config
from pipeline.launch import Composed, compose_all
from pipeline.launch.arguments import CommandLine, as_literal, read_arguments
from pipeline.launch.compose import options
from pipeline.launch.own_files import OwnFiles, clusters_folder
from pipeline.launch.programs import SLURM, SUBMIT
from pipeline.run_folder.at_work import absolute
from pipeline.run_folder.layout import RunFolder

PLAIN = re.compile(r"[\w./:=+,@%~-]+")
"""A path that Hydra's grammar, or the words as they were typed, read as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submittable:
    """One job to submit."""

    config: JobConfig
    slurm: SlurmConfig
    arguments: list[str]
    """What pipeline.run gets on the nodes: with an absolute output, without `slurm`."""
    note: str | None
    """What to say about settings that nobody has typed."""


def to_submit(argv: Sequence[str]) -> list[Submittable]:
    """The jobs that a command line of jobs.submit names; none with flags such as --help, after
    showing what they ask for.

    Raises:
        UserError: the command line, or a file that it names, is wrong.
    """
    line = read_arguments(argv, SUBMIT)
    made = compose_all(line)
    if made is None:
        return []
    sweep, composed = made
    return [
        Submittable(
            config=config,
            slurm=_slurm(line, its),
            arguments=_arguments(line, its.overrides, config),
            note=its.note,
        )
        for config, its in zip(sweep.configs, composed, strict=True)
    ]


def _slurm(line: CommandLine, composed: Composed) -> SlurmConfig:
    """
    Raises:
        UserError: nothing says where the job is to run, or a field is wrong.
    """
    keys = {override.partition("=")[0] for override in composed.overrides}
    says = {key for key in keys if key.partition(".")[0] == SLURM} - {f"{SLURM}.dry_run"}
    if not says:
        own = OwnFiles.of(line.config_dir, line.overrides, SUBMIT).options(SLURM)
        known = ", ".join(f"slurm={name}" for name in options(SLURM) + own)
        raise UserError(
            f"slurm is missing: say where the job is to run: {known}; a file of your own, "
            f"{clusters_folder()}/NAME.yaml; or only fields, such as slurm.partition=NAME, for one "
            "node with one GPU"
        )
    return slurm_config(composed.slurm)


def _arguments(line: CommandLine, overrides: Sequence[str], config: JobConfig) -> list[str]:
    left = [its for its in overrides if not re.match(rf"({SLURM}[.=]|output=)", its)]
    output = absolute(RunFolder(config.output))
    shown = output if PLAIN.fullmatch(output) else as_literal(output.replace("${", "\\${"))
    folder = [] if line.config_dir is None else [Path(line.config_dir).expanduser().absolute()]
    return [*left, f"output={shown}", *(f"--config-dir={its}" for its in folder)]
