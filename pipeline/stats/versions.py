"""Library versions and git revision, recorded in stats and plan for information only."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine import __version__

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "triton")


@cache
def library_versions() -> dict[str, str]:
    found = {"dllm-pipeline": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_revision() -> str | None:
    """The commit of this checkout, followed by + if files differ from it; None outside a git
    checkout."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(
            describe,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
