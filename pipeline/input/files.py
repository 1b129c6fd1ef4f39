"""Inspect the input files: each one's rows, columns and digest.

Only rank 0 does this, when it makes the plan or checks it on a resume.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.errors import InputError, unreadable_is_an_error
from pipeline.input.json_kinds import JsonColumns
from pipeline.input.json_lines import HEAD_BYTES, OTHERS, PARQUET_MAGIC, inspect_json_lines
from pipeline.input.listing import Found, is_parquet, names_of
from pipeline.input.runs import EarlierRun
from pipeline.run_folder.store import fs_and_path, open_for_reading

THREADS = 16
"""Threads that inspect files. They mostly wait for I/O."""
WHOLE_BYTES = 64 << 20
"""Files of at most this size are hashed whole."""

Declared: TypeAlias = "pa.Schema | JsonColumns"
"""The columns of one file: as Parquet declares them, or as they were seen in its lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    path: str
    """A local path or URL that fsspec can open."""
    name: str
    """The unique FILE in row ids FILE:ROW: the stem, the file name or the end of the path."""
    num_rows: int
    digest: str
    """Hash of the contents. JSON Lines: the whole text. Parquet: the size, and the whole file if it
    has at most WHOLE_BYTES, otherwise the footer, so that planning need not read large files."""
    stamp: str | None = None
    """The file's size and its ETag or modification time, as the file system reports them. If a job
    is resumed and no stamp has changed, its input files are not read again to check the plan.
    None: the file system reports neither ETag nor time."""
    keys: dict[str, str | None] = field(default_factory=dict)
    """Columns that are not in the file but have one value in all its rows, from folders called
    key=value; null if it lies in no such folder and other files do."""
    run: EarlierRun | None = None
    """The run whose output it is, if data.path names that run's folder."""

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "InputFile":
        """The inverse of dataclasses.asdict."""
        run = raw.get("run")
        return cls(**{**raw, "run": None if run is None else EarlierRun(**run)})


def stamps_of(paths: list[str]) -> list[str | None]:
    """The stamp of each file (see InputFile.stamp)."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_stamp, paths))


def inspect_all(
    files: list[Found], stamps: list[str | None]
) -> tuple[list[InputFile], list[Declared]]:
    """Inspect all files in parallel; returns one InputFile and the columns of each.

    Raises:
        InputError: a file is not readable as the format that its name says.
    """
    names = names_of([file.path for file in files])
    with ThreadPoolExecutor(THREADS) as pool:
        inspected = list(pool.map(inspect, files, names, stamps))
    return [file for file, _ in inspected], [columns for _, columns in inspected]


def inspect(found: Found, name: str, stamp: str | None = None) -> tuple[InputFile, Declared]:
    """Count a file's rows, hash its contents and find its columns.

    Raises:
        InputError: the file is not readable as the format that its name says.
    """
    path = found.path
    declared: Declared
    with unreadable_is_an_error(path):
        rows, digest, declared = _parquet(path) if is_parquet(path) else inspect_json_lines(path)
    file = InputFile(
        path=path,
        name=name,
        num_rows=rows,
        digest=digest,
        stamp=stamp,
        keys={key: value for key, value in found.keys.items() if key not in declared.names},
        run=found.run,
    )
    return file, declared


def _stamp(path: str) -> str | None:
    with unreadable_is_an_error(path):
        fs, path_in_fs = fs_and_path(path)
        info = fs.info(path_in_fs)
    names = ("e_tag", "ETag", "etag", "mtime", "last_modified", "last_commit")
    tags = (info.get(name) for name in names)
    tag = next((tag for tag in tags if tag is not None), None)
    return None if tag is None else f"{info['size']} {tag}"


def _parquet(path: str) -> tuple[int, str, pa.Schema]:
    with open_for_reading(path) as file:
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise InputError(f"data.path={path}: {_no_parquet(file)} ({error})") from error
        size = file.seek(0, os.SEEK_END)
        file.seek(size - 8)
        footer_size = int.from_bytes(file.read(4), "little")
        file.seek(0 if size <= WHOLE_BYTES else size - 8 - footer_size)
        digest = _digest(str(size).encode() + file.read())
        return parquet.metadata.num_rows, digest, parquet.schema_arrow.remove_metadata()


def _no_parquet(file: IO[bytes]) -> str:
    """What a file is that cannot be read as Parquet, and what to do."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        return "is empty; write it again, or leave it out"
    if head.startswith(PARQUET_MAGIC):
        return "is cut short or damaged; copy or write it again"
    for magic, (what, remedy) in OTHERS.items():
        if head.startswith(magic):
            return f"is {what}, not Parquet; {remedy}"
    if head.lstrip()[:1] in (b"{", b"["):
        return "looks like JSON, not Parquet; give it a name that ends in .jsonl"
    return "is not a Parquet file; write it again, or leave it out"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
