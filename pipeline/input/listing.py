"""Which files does `data.path` name?

A folder stands for all readable files below it, except run folders: what this job or another one
has written there is no input. Folders called key=value below it are columns of their files. A run
folder itself stands for the output of that run (pipeline/input/runs.py).
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from urllib.parse import unquote

from fsspec.spec import AbstractFileSystem

from pipeline.input.errors import InputError, unreadable_is_an_error
from pipeline.input.runs import EarlierRun, earlier_run, is_run
from pipeline.run_folder.store import fs_and_path, is_local

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
"""If `data.path` is a folder, its .json files are skipped: most are some tool's metadata, such as
dataset_info.json."""
READABLE = (*PARQUET, *JSON_LINES, *(f"{ending}.gz" for ending in JSON_LINES))
NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
"""What a folder's name has in the place of a value that is null."""


@dataclass(frozen=True, slots=True)
class Found:
    path: str
    """A local path or URL that fsspec can open."""
    keys: Mapping[str, str | None] = field(default_factory=dict)
    """Column -> value, from the folders called key=value on the way to the file."""
    run: EarlierRun | None = None
    """The run whose output the file is, if `data.path` names that run's folder."""


@dataclass(frozen=True, slots=True)
class Listing:
    files: list[Found]
    """Sorted within each entry of `data.path`, without duplicates."""
    notes: list[str]
    """What was left out, for the user."""

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files]


def list_inputs(path: str | list[str], output: str | None = None) -> Listing:
    """List the files that `data.path` names, without those below `output`.

    Raises:
        InputError: an entry does not exist, cannot be reached, holds no Parquet or JSON Lines file,
            or is an earlier run that cannot be read as one.
    """
    found: dict[str, Found] = {}
    notes: list[str] = []
    for entry in [path] if isinstance(path, str) else path:
        of_entry: list[str] = []
        for file in _Entry(entry, output).files(of_entry):
            found.setdefault(file.path, file)
        notes += of_entry
    files = _with_unlike_ids(list(found.values()))
    notes += [run.note for run in dict.fromkeys(f.run for f in files if f.run) if run.note]
    return Listing(files, notes)


def names_of(paths: list[str]) -> list[str]:
    """A unique name for each file: its stem, else its file name, else the end of its path, else the
    whole URL."""
    depths = [0] * len(paths)
    while True:
        names = [_name(path, depth) for path, depth in zip(paths, depths, strict=True)]
        count = Counter(names)
        ambiguous = [i for i, name in enumerate(names) if count[name] > 1]
        if not ambiguous:
            return names
        for i in ambiguous:
            depths[i] += 1


def is_parquet(path: str) -> bool:
    return path.lower().endswith(PARQUET)


class _Entry:
    """One entry of data.path."""

    def __init__(self, entry: str, output: str | None) -> None:
        self._entry = entry
        with unreadable_is_an_error(entry):
            self._fs, self._root = fs_and_path(os.path.expanduser(entry))
            self._own = None if output is None else _inside(self._fs, output)

    def files(self, notes: list[str]) -> list[Found]:
        """The files of this entry; `notes` gets a line for what is left out.

        Raises:
            InputError: there is none, or the entry cannot be reached.
        """
        fs, root = self._fs, self._root
        with unreadable_is_an_error(self._entry):
            if fs.isfile(root):
                return self._found([root], None, [])
            if fs.isdir(root):
                if is_run(fs, root):
                    return self._of_run()
                listed = [str(path) for path in fs.find(root)]
                paths = self._without_runs(listed, root, notes, deep=True)
                paths = [path for path in paths if not path.lower().endswith(".json")]
                return self._found([p for p in paths if not _is_hidden(p, root)], root, notes)
            if any(sign in root for sign in "*?["):
                matched = [str(path) for path in fs.glob(root)]
                listed = [path for path in matched if not fs.isdir(path)]
                base = _fixed_part(root)
                paths = self._without_runs(listed, base, notes, deep="**" in root)
                if matched and not listed:
                    notes = [f"data.path={self._entry}: matches only folders, such as {matched[0]}"]
                return self._found([p for p in paths if not _is_hidden(p, "")], base, notes)
        raise InputError(f"data.path={self._entry}: no such file or folder; check the spelling")

    def _of_run(self) -> list[Found]:
        if self._own is not None and _real(self._fs, self._root) == _real(self._fs, self._own):
            raise InputError(
                f"data.path={self._entry}: is the job's own output; give another output"
            )
        run, paths = earlier_run(self._fs, self._root, self._entry)
        return [Found(self._address(path), run=run) for path in paths]

    def _without_runs(self, paths: list[str], base: str, notes: list[str], deep: bool) -> list[str]:
        """The paths that are not in the job's own output, nor, if `deep`, in another run folder
        below `base`."""
        parents = {path: {str(folder) for folder in PurePosixPath(path).parents} for path in paths}
        below = {f for its in parents.values() for f in its if f.startswith(f"{base.rstrip('/')}/")}
        listed = set(paths) if self._fs.isdir(self._root) else None
        runs = {folder for folder in below if deep and is_run(self._fs, folder, listed)}
        if self._own is not None:
            own = _real(self._fs, self._own)
            runs |= {folder for folder in below if _real(self._fs, folder) == own}
        if runs:
            shown = ", ".join(sorted(runs)[:3]) + (", ..." if len(runs) > 3 else "")
            what = "a run folder is" if len(runs) == 1 else "run folders are"
            notes.append(f"data.path={self._entry}: left out {shown}: {what} no input")
        return [path for path in paths if runs.isdisjoint(parents[path])]

    def _found(self, paths: list[str], base: str | None, notes: list[str]) -> list[Found]:
        """The readable files among `paths`; folders below `base` may be key=value. `notes` say
        what was left out.

        Raises:
            InputError: none is readable.
        """
        readable = sorted(path for path in paths if path.lower().endswith(READABLE))
        if not readable:
            endings = f"no file that ends in one of {', '.join(READABLE)}"
            raise InputError(
                f"{notes[-1]}; there is {endings} besides; name a Parquet or JSON Lines file, or "
                "the folders themselves: data.path=[FOLDER, ...]"
                if notes
                else f"data.path={self._entry}: {endings} ({len(paths)} other files); name a "
                "Parquet or JSON Lines file"
            )
        return [
            Found(self._address(path), {} if base is None else _keys(path, base))
            for path in readable
        ]

    def _address(self, path: str) -> str:
        return path if is_local(self._fs) else self._fs.unstrip_protocol(path)


def _with_unlike_ids(files: list[Found]) -> list[Found]:
    """The files, with ids that differ: if they are not all of one run, those of a run begin with
    its name.

    Raises:
        InputError: two runs have the same name.
    """
    runs = dict.fromkeys(file.run for file in files)
    if len(runs) < 2:
        return files
    names = [run.name for run in runs if run is not None]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(
            f"data.path: two runs are called {twice[0]!r}, so their rows would have the same ids; "
            "rename one of the folders"
        )
    prefixed = {run: run and replace(run, id_prefix=f"{run.name}/") for run in runs}
    return [replace(file, run=prefixed[file.run]) for file in files]


def _inside(fs: AbstractFileSystem, output: str) -> str | None:
    """The path of the output if it is in the same file system; else None."""
    out, path = fs_and_path(output)
    return path if type(out) is type(fs) else None


def _real(fs: AbstractFileSystem, path: str) -> str:
    return os.path.realpath(path) if is_local(fs) else path.rstrip("/")


def _fixed_part(pattern: str) -> str:
    """The folder of a glob before its first wildcard."""
    parts = PurePosixPath(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    return str(PurePosixPath(*parts[:fixed]))


def _keys(path: str, base: str) -> dict[str, str | None]:
    """The keys and values in the names of the folders between `base` and the file."""
    folders = PurePosixPath(path.removeprefix(base)).parts[:-1]
    pairs = (folder.partition("=") for folder in folders)
    return {
        unquote(key): None if value == NULL_KEY else unquote(value)
        for key, sign, value in pairs
        if sign and key
    }


def _is_hidden(path: str, root: str) -> bool:
    """Whether a name in the path starts with "." or "_": any name below the folder `root`, or, for
    a match of a glob (`root` is empty), the file name alone."""
    parts = PurePosixPath(path.removeprefix(root)).parts
    return any(part.startswith((".", "_")) for part in (parts if root else parts[-1:]))


def _name(path: str, depth: int) -> str:
    parts = PurePosixPath(path.split("://")[-1]).parts
    if depth == 0:
        ending = next(end for end in sorted(READABLE, key=len)[::-1] if path.lower().endswith(end))
        return parts[-1][: -len(ending)]
    return "/".join(parts[-depth:]) if depth <= len(parts) else path
