"""Slurm's commands: runs them, and turns their refusals into errors that say what to do."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from engine.errors import UserError

TIMEOUT_S = 60.0
"""Seconds that a command may take: a busy controller answers late."""


AWAY = (
    *("unable to contact slurm controller", "socket timed out", "connection refused", "zero bytes"),
    *("standby mode", "munge"),
)
"""What Slurm's commands say if the controller, or the service that signs requests, is away."""


class SlurmError(UserError):
    """A command of Slurm failed; the message is Slurm's own, with what helps."""


class NoSlurm(SlurmError):
    """Slurm's commands are not installed on this machine, or its controller does not answer."""


def run(
    *command: str,
    stdin: str | None = None,
    timeout_s: float = TIMEOUT_S,
    env: Mapping[str, str] = os.environ,
) -> str:
    """Run one of Slurm's commands; returns what it printed. Times are printed as ISO 8601.

    Raises:
        NoSlurm: there is no such command here, SLURM_CONF names no file, or the controller does not
            answer.
        SlurmError: the command failed.
    """
    settings = env.get("SLURM_CONF")
    if settings and not os.path.exists(settings):  # for this, the commands wait a minute
        raise NoSlurm(
            f"SLURM_CONF={settings}: no such file; name the cluster's slurm.conf, or unset "
            "SLURM_CONF"
        )
    # A user's SQUEUE_PARTITION or SACCT_FORMAT must not change what is asked.
    kept = {k: v for k, v in env.items() if not k.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={**kept, "SLURM_TIME_FORMAT": "%Y-%m-%dT%H:%M:%S%z"},
        )
    except FileNotFoundError:
        raise NoSlurm(
            f"{command[0]}: not found; run this where Slurm's commands are, such as a login node"
        ) from None
    except subprocess.TimeoutExpired:
        raise NoSlurm(
            f"{command[0]}: no answer within {timeout_s:g} s; Slurm's controller is down or busy, "
            "try again later"
        ) from None
    if done.returncode:
        raise _refused(command, done.stderr or done.stdout)
    return done.stdout


def _refused(command: Sequence[str], said: str) -> SlurmError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [re.sub(rf"^{command[0]}: (error|fatal): ", "", line) for line in lines]
    message = f"{command[0]}: {'; '.join(lines[-2:]) or 'failed without a word'}"
    is_away = any(word in said.lower() for word in AWAY)
    return NoSlurm(message) if is_away else SlurmError(message)


def requeue(label: str) -> None:
    """Queue a running job or element again; its processes are ended. No error if Slurm is
    requeueing it already.

    Raises:
        SlurmError: Slurm refuses.
    """
    try:
        run("scontrol", "requeue", label)
    except NoSlurm:
        raise
    except SlurmError as error:
        if "pending execution" not in str(error):
            raise


def terminate_step(step: str) -> None:
    """Send SIGTERM to every process of a job step, as 1234.0. (srun itself must get no signal: it
    would kill the step at once.)

    Raises:
        SlurmError: Slurm refuses.
    """
    run("scancel", "--signal=TERM", step)


def cancel(ids: Sequence[int]) -> None:
    """Cancel jobs for good; those that have ended are left alone.

    Raises:
        SlurmError: Slurm refuses.
    """
    run("scancel", *map(str, ids))
