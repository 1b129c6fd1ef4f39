"""SlurmConfig as the options of sbatch.

They stand in the batch script, where a person reads them, and again on the command line of sbatch,
where no SBATCH_... variable of the user's shell overrides them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from pipeline.config.slurm import SlurmConfig

FINISHER_CPUS = 4
FINISHER_MEMORY = "8G"
"""What the job gets that writes the summary of an array: it reads the output and scores it."""
FINISHER_EXTRA = ("--reservation", "--wckey", "--comment", "--nice")
"""Options of slurm.extra that say on whose account and when; the others ask for a job's hardware,
which that job does not need."""
OURS = {
    "--partition": "slurm.partition",
    "-p": "slurm.partition",
    "--account": "slurm.account",
    "-A": "slurm.account",
    "--qos": "slurm.qos",
    "-q": "slurm.qos",
    "--nodes": "slurm.nodes",
    "-N": "slurm.nodes",
    "--ntasks": "slurm.nodes and slurm.ranks_per_node",
    "-n": "slurm.nodes and slurm.ranks_per_node",
    "--ntasks-per-node": "slurm.ranks_per_node",
    "--gpus-per-node": "slurm.gpus_per_node",
    "--cpus-per-task": "slurm.cpus_per_node",
    "-c": "slurm.cpus_per_node",
    "--cpus-per-gpu": "slurm.cpus_per_gpu",
    "--mem": "slurm.memory",
    "--time": "slurm.time",
    "-t": "slurm.time",
    "--signal": "slurm.signal_s",
    "--requeue": "slurm.requeue",
    "--no-requeue": "slurm.requeue",
    "--constraint": "slurm.constraint",
    "-C": "slurm.constraint",
    "--exclude": "slurm.exclude",
    "-x": "slurm.exclude",
    "--array": "slurm.array",
    "-a": "slurm.array",
    "--dependency": "slurm.after",
    "-d": "slurm.after",
    "--mail-user": "slurm.mail",
    "--mail-type": "slurm.mail",
    "--export": "slurm.env",
    "--output": "slurm.folder",
    "-o": "slurm.folder",
    "--error": "slurm.folder",
    "-e": "slurm.folder",
    "--open-mode": "",
    "--job-name": "",
    "-J": "",
    "--parsable": "",
    "--hold": "",
    "-H": "",
    "--wrap": "",
    "--test-only": "",
    "--wait": "",
    "-W": "",
    "--chdir": "",
    "-D": "",
    "--clusters": "",
    "-M": "",
}
"""Option of sbatch -> the field that says it; "": the submission sets it, or cannot do with it."""
UNSAFE = re.compile(r"[^\w.=+,-]+")
NAME_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    flag: str
    value: str | None = None
    """None: the flag alone."""

    @property
    def argument(self) -> str:
        """As one word of a command line."""
        return self.flag if self.value is None else f"{self.flag}={self.value}"

    @property
    def line(self) -> str:
        """As a line of the batch script."""
        if self.value is None:
            return f"#SBATCH {self.flag}"
        is_plain = re.fullmatch(r"[\w./:=+,@%~^|&*\[\]()-]+", self.value)
        in_quotes = '"' + re.sub(r'(["\\])', r"\\\1", self.value) + '"'
        return f"#SBATCH {self.flag}={self.value if is_plain else in_quotes}"


def check_extra(extra: Sequence[str] | None) -> None:
    """
    Raises:
        UserError: slurm.extra holds no option, or one that would undo what the submission needs.
    """
    for text in extra or []:
        flag = re.split(r"[=\s]", text.strip(), maxsplit=1)[0]
        if not flag.startswith("-"):
            raise UserError(
                f"slurm.extra={text}: give an option of sbatch, as --reservation=maintenance"
            )
        if (field := OURS.get(flag)) is not None:
            remedy = f"give {field}" if field else "it cannot be given"
            raise UserError(f"slurm.extra={text}: {flag} is set by the submission; {remedy}")


def job_options(slurm: SlurmConfig, name: str, logs: Path, exported: Sequence[str]) -> list[Option]:
    """The options of the job, or of the array."""
    is_array = slurm.array is not None
    found = [
        *_common(slurm, name, logs, "%A_%a" if is_array else "%j", exported),
        *_given(slurm),
        _option("--signal", f"B:USR1@{slurm.signal_s}"),
        Option(flag="--requeue" if slurm.requeue else "--no-requeue"),
    ]
    if slurm.after is not None:
        found.append(_option("--dependency", f"afterok:{slurm.after}"))
        found.append(_option("--kill-on-invalid-dep", "yes"))
    if is_array:
        assert slurm.array is not None
        at_once = "" if slurm.array_at_once is None else f"%{slurm.array_at_once}"
        found.append(_option("--array", f"0-{slurm.array - 1}{at_once}"))
    return [*found, *(_extra(text) for text in slurm.extra or [])]


def finisher_options(
    slurm: SlurmConfig, name: str, logs: Path, exported: Sequence[str], array_id: str
) -> list[Option]:
    """The options of the small job that runs when all elements of an array have ended. It asks for
    no GPU; of slurm.extra it has FINISHER_EXTRA alone."""
    place = {"--partition": slurm.partition, "--account": slurm.account, "--qos": slurm.qos}
    limits = {"--time": slurm.time, "--exclude": slurm.exclude, "--constraint": slurm.constraint}
    extra = [_extra(text) for text in slurm.extra or []]
    return [
        *_common(slurm, f"{name}-finish", logs, "%j", exported),
        _option("--nodes", "1"),
        _option("--ntasks-per-node", "1"),
        _option("--cpus-per-task", str(min(FINISHER_CPUS, _cpus(slurm) or FINISHER_CPUS))),
        _option("--mem", FINISHER_MEMORY),
        *(_option(flag, value) for flag, value in (place | limits).items() if value is not None),
        Option(flag="--requeue"),
        _option("--dependency", f"afterany:{array_id}"),
        *(its for its in extra if its.flag in FINISHER_EXTRA),
    ]


def job_name(name: str | None, folder: str) -> str:
    """The job's name in Slurm: the ready job's, and the run folder's if that is another."""
    parts = [part for part in (name, folder) if part]
    text = "-".join(dict.fromkeys(parts)) or "dllm"
    return UNSAFE.sub("_", text)[:NAME_LENGTH]


def _common(
    slurm: SlurmConfig, name: str, logs: Path, pattern: str, exported: Sequence[str]
) -> Iterator[Option]:
    yield _option("--job-name", name)
    yield _option("--output", f"{str(logs).replace('%', '%%')}/{pattern}.log")
    yield _option("--open-mode", "append")
    yield _option("--export", ",".join(exported))
    if slurm.mail is not None:
        yield _option("--mail-user", slurm.mail)
        yield _option("--mail-type", "END,FAIL")


def _given(slurm: SlurmConfig) -> Iterator[Option]:
    """The options that say where, how long and on what, one for each field that has a value."""
    gpus = f"{slurm.gpu_type}:{slurm.gpus_per_node}" if slurm.gpu_type else slurm.gpus_per_node
    cpus = _cpus(slurm)
    for flag, value in (
        ("--partition", slurm.partition),
        ("--account", slurm.account),
        ("--qos", slurm.qos),
        ("--nodes", slurm.nodes),
        ("--ntasks-per-node", 1),
        ("--gpus-per-node", gpus if slurm.gpus_per_node else None),
        ("--cpus-per-task", cpus),
        ("--mem", slurm.memory),
        ("--time", slurm.time),
        ("--constraint", slurm.constraint),
        ("--exclude", slurm.exclude),
    ):
        if value is not None:
            yield _option(flag, str(value))


def _cpus(slurm: SlurmConfig) -> int | None:
    """CPU cores of the one task on each node. (--cpus-per-gpu would bind srun's step to fewer.)"""
    if slurm.cpus_per_gpu is not None:
        return slurm.cpus_per_gpu * slurm.gpus_per_node
    return slurm.cpus_per_node


def _option(flag: str, value: str) -> Option:
    return Option(flag=flag, value=value)


def _extra(text: str) -> Option:
    flag, equals, value = text.strip().partition("=")
    return Option(flag=flag, value=value if equals else None)
