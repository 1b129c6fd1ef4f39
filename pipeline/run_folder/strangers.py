"""Find what is in a folder that is not of a run, before anything is written there.

A run writes README.md, config.yaml and others under fixed names, and removes old files from tmp/.
So a folder without run.json is used only if it is empty, or holds no more than what a start leaves
that ends before it writes run.json.
"""

import re
from pathlib import Path

from engine.errors import UserError
from pipeline.run_folder.files import entries, exists
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import StoreError

NUM_NAMED = 5
"""The message names at most this many files."""
LEFT_BY_A_START = ("run.lock", "launch.json", "logs/", "shares/", "slurm/")
TEMPORARY = re.compile(r".+\.[^/]+-\d+")
"""A file in tmp/: NAME.HOST-PID."""


def check_is_free(folder: RunFolder) -> None:
    """Check that a run may be written to this folder. A folder with run.json is not looked at:
    whether its run is this job's is checked when the plan is made.

    Raises:
        UserError: it is a file, cannot be read, or holds files that are not of a run.
    """
    path = folder.path
    if isinstance(path, Path) and path.exists() and not path.is_dir():
        raise UserError(f"output={path}: is a file; name a folder")
    try:
        if exists(folder.plan_file):
            return
        found = strangers(folder)
    except (PermissionError, StoreError) as error:
        raise UserError(
            f"output={path}: cannot be read ({error}); name a folder that you may write to"
        ) from error
    # The first launch of another share may have begun the run since: it writes run.json first.
    if found and not exists(folder.plan_file):
        more = ", ..." if len(found) > NUM_NAMED else ""
        raise UserError(
            f"output={path}: is in use for something else: it holds {', '.join(found[:NUM_NAMED])}"
            f"{more}, but no run.json, and the run would write among them; give a folder that is "
            f"new or empty, for example output={str(path).rstrip('/')}/run"
        )


def strangers(folder: RunFolder) -> list[str]:
    """The names of the files and folders that no start of a run leaves before it writes run.json.
    Neither hidden ones count, nor the runs of a sweep in folders of their own (seed=1/)."""
    found: list[str] = []
    for name in _visible(entries(folder.path)):
        if name in ("data/", "stats/", "timeline/", "starts/"):
            found += [f"{name}{its}" for its in _visible(entries(folder.path / name.rstrip("/")))]
        elif name == "tmp/":
            inside = _visible(entries(folder.path / "tmp"))
            found += [f"{name}{its}" for its in inside if not TEMPORARY.fullmatch(its)]
        elif name not in LEFT_BY_A_START and not _is_of_a_sweep(folder, name):
            found.append(name)
    return found


def _is_of_a_sweep(folder: RunFolder, name: str) -> bool:
    return "=" in name and exists(RunFolder(folder.path / name.rstrip("/")).plan_file)


def _visible(names: list[str]) -> list[str]:
    """Without hidden files, the folder that a disk's root has, and the empty name by which some
    tools mark a folder on a store."""
    return [name for name in names if name and name[0] != "." and name != "lost+found/"]
