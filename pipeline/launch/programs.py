"""The commands that take a job's settings, and what each takes beside them."""

from dataclasses import dataclass

from pipeline.config.fields import GROUPS, Field, all_fields, slurm_fields

SLURM = "slurm"
"""The group, and the section, that says where a submitted job runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One of the commands."""

    name: str
    """As in `python -m NAME`."""
    root: str
    """Its root config in conf/."""
    takes_slurm: bool
    """Whether it has the group `slurm` with its fields."""

    @property
    def groups(self) -> tuple[str, ...]:
        """GROUP of GROUP=NAME, but for `conf`."""
        return (*GROUPS, SLURM) if self.takes_slurm else GROUPS

    @property
    def fields(self) -> dict[str, Field]:
        """FIELD of FIELD=VALUE."""
        return all_fields() | (slurm_fields() if self.takes_slurm else {})


RUN = Program(name="pipeline.run", root="run", takes_slurm=False)
SUBMIT = Program(name="jobs.submit", root="submit", takes_slurm=True)
CALIBRATE = Program(name="pipeline.calibrate", root="run", takes_slurm=False)
ROOTS = (RUN.root, SUBMIT.root)
