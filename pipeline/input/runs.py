"""The output of an earlier run as input: which rows, with which ids?

`data.path=runs/a` reads the rows of that run that did not fail. They keep their ids: `row_id` of
that run, and its `sample_index` too if it made several samples of some row.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from pipeline.input.errors import InputError
from pipeline.run_folder.layout import PART_NAME

ROW_ID, SAMPLE, REASON, FAILED = "row_id", "sample_index", "finish_reason", "error"
NEEDED = (ROW_ID, SAMPLE, REASON)
"""The columns that say which rows are taken, and with which ids."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A finished run, as an input."""

    path: str
    """Its folder, in its file system."""
    name: str
    """The last part of that path."""
    has_samples: bool
    """Whether some row has several samples, so that only both columns together are unique."""
    id_prefix: str = ""
    """Begins the ids if the job has other input too."""
    note: str = ""
    """What is left out of it, for the user."""

    def ids(self, rows: pa.Table) -> list[str]:
        """The ids of its rows. `rows` has the columns NEEDED."""
        ids = [f"{self.id_prefix}{row_id}" for row_id in rows[ROW_ID].to_pylist()]
        if not self.has_samples:
            return ids
        return [f"{row}:{i}" for row, i in zip(ids, rows[SAMPLE].to_pylist(), strict=True)]

    def takes(self, rows: pa.Table) -> list[bool]:
        """Whether each row did not fail."""
        return [reason != FAILED for reason in rows[REASON].to_pylist()]


def is_run(fs: AbstractFileSystem, folder: str, listed: Collection[str] | None = None) -> bool:
    """Whether a folder is that of a run. `listed` are all files below it, if they are known."""
    files = [f"{folder.rstrip('/')}/{name}" for name in ("run.json", "config.yaml")]
    return all(fs.isfile(file) if listed is None else file in listed for file in files)


def earlier_run(fs: AbstractFileSystem, folder: str, entry: str) -> tuple[EarlierRun, list[str]]:
    """The run in a folder, and the files of its parts in their order. `entry` names it in messages.

    Raises:
        InputError: it is not finished, or no run of this pipeline.
    """
    root = folder.rstrip("/")
    names = [PurePosixPath(path).name for path in fs.ls(f"{root}/data", detail=False)]
    parts = sorted(name for name in names if PART_NAME.fullmatch(name))
    parts.sort(key=lambda name: int(name[len("part-") : -len(".parquet")]))
    summary = _summary(fs, root, entry)
    if summary is None or len(parts) != summary["num_parts"]:
        raise InputError(
            f"data.path={entry}: this run is not finished, {len(parts)} of its parts are there; "
            f"finish it first, or take its rows as they are with data.path={entry}/data"
        )
    num_failed = summary["num_failed"]
    run = EarlierRun(
        path=root,
        name=PurePosixPath(root).name,
        has_samples=summary["num_rows_in"] != summary["num_rows_out"],
        note=f"data.path={entry}: left out {num_failed} rows that failed in that run"
        if num_failed
        else "",
    )
    return run, [f"{root}/data/{name}" for name in parts]


def _summary(fs: AbstractFileSystem, root: str, entry: str) -> dict[str, Any] | None:
    if not fs.isfile(f"{root}/summary.json"):
        return None
    try:
        summary = json.loads(fs.cat_file(f"{root}/summary.json"))
        counts = ("num_parts", "num_failed", "num_rows_in", "num_rows_out")
        return {name: int(summary[name]) for name in counts}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"data.path={entry}: {root}/summary.json is not that of a run ({error!r}); take its "
            f"rows as they are with data.path={entry}/data"
        ) from error
