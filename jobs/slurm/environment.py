"""Which variables of the submitting shell does a job get? By name, and no others.

sbatch would pass on all of them, with the keys in them and with what only this machine has (TMPDIR,
DISPLAY). So the job gets those that say where programs, libraries and caches are, and those that
slurm.env names. Their values are in no file of the run: Slurm carries them.
"""

import os
import re
from collections.abc import Mapping, Sequence

from engine.errors import UserError
from pipeline.config.job import JobConfig
from pipeline.config.slurm import SlurmConfig
from pipeline.run_folder.store import SECRETS, is_stored

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ"),
    *("PYTHONPATH", "PYTHONSAFEPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "XDG_CACHE_HOME"),
)
"""What Python and the caches need on the nodes. None of them is a secret."""
OF_SLURM = (
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTER_NAME", "SLURM_CLUSTERS", "SLURM_JWT"),
)
"""Variables that say where Slurm is and who asks, not which job this is."""

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|(_|\b)KEY(_|\b)", re.IGNORECASE)
SHORTEST_SECRET = 8
"""A shorter value stands in many texts by chance."""


def exported(slurm: SlurmConfig, env: Mapping[str, str] = os.environ) -> list[str]:
    """The names that go to sbatch's --export.

    Raises:
        UserError: slurm.env names a variable that is not set.
    """
    for name in slurm.env or []:
        if name not in env:
            raise UserError(
                f"slurm.env={name}: is not set in this shell, so the job would not get it; "
                f"export {name}, or leave it out"
            )
    return list(dict.fromkeys([*(name for name in PASSED if name in env), *(slurm.env or [])]))


def for_sbatch(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of sbatch itself. Within a job, Slurm's variables of that job would go on to
    the new one, which would then be taken for an element of an array or for another start."""
    return {
        name: value
        for name, value in env.items()
        if not name.startswith("SLURM_") or name in OF_SLURM
    }


def check_no_secret(
    texts: Mapping[str, Sequence[str]], env: Mapping[str, str] = os.environ
) -> None:
    """Check that no text that goes into a file holds the value of a secret variable of this shell.

    Args:
        texts: where they were typed -> the texts.

    Raises:
        UserError: one does.
    """
    secrets = {n: v for n, v in env.items() if SECRET_NAME.search(n) and len(v) >= SHORTEST_SECRET}
    for where, typed in texts.items():
        for name, value in secrets.items():
            if any(value in text for text in typed):
                raise UserError(
                    f"{where}: holds the value of {name}, and would be written to the run folder; "
                    f"give slurm.env=[{name}], which passes it on without writing it"
                )


def keys_left_behind(
    config: JobConfig, slurm: SlurmConfig, env: Mapping[str, str] = os.environ
) -> str | None:
    """What to say if keys are set here that the job may need and does not get; None: nothing."""
    paths = config.data.path if isinstance(config.data.path, list) else [config.data.path]
    needed: Sequence[str] = SECRETS if any(map(is_stored, [config.output, *paths])) else ()
    uses_hub = not os.path.isdir(config.model.path) or any(p.startswith("hf://") for p in paths)
    names = [*needed, *(["GOOGLE_APPLICATION_CREDENTIALS"] if needed else [])]
    names += ["HF_TOKEN"] if uses_hub and not slurm.offline else []
    left = [name for name in names if env.get(name) and name not in (slurm.env or [])]
    if not left:
        return None
    return (
        f"{', '.join(left)}: set here, but the job does not get "
        f"{'them' if len(left) > 1 else 'it'}; if it needs them, slurm.env=[{','.join(left)}]"
    )
