"""Find the input files, and inspect each one's rows, columns and digest.

Only rank 0 does this, when it makes the plan or checks it on a resume.
"""

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.errors import InputError, unreadable_is_an_error
from pipeline.input.json_lines import inspect_json_lines, unify
from pipeline.run_folder.store import fs_and_path, is_local, open_for_reading

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
"""If `data.path` is a folder, its .json files are skipped: most are some tool's metadata, such as
dataset_info.json."""
READABLE = (*PARQUET, *JSON_LINES, *(f"{ending}.gz" for ending in JSON_LINES))
THREADS = 16
"""Threads that inspect files. They mostly wait for I/O."""
WHOLE_BYTES = 64 << 20
"""Files of at most this size are hashed whole."""


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


def list_inputs(path: str | list[str]) -> list[str]:
    """The files that `data.path` names: sorted within each entry, without duplicates.

    Raises:
        InputError: an entry does not exist, cannot be reached, or holds no Parquet or JSON Lines
            file.
    """
    entries = [path] if isinstance(path, str) else path
    found = [file for entry in entries for file in _list_entry(entry)]
    return list(dict.fromkeys(found))


def names_of(paths: list[str]) -> list[str]:
    """A unique name for each file: its stem, else its file name, else the end of its path."""
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


def stamps_of(paths: list[str]) -> list[str | None]:
    """The stamp of each file (see InputFile.stamp)."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_stamp, paths))


def inspect_all(
    paths: list[str], stamps: list[str | None]
) -> tuple[list[InputFile], list[pa.Schema]]:
    """Inspect all files in parallel; returns one InputFile and one schema for each.

    Raises:
        InputError: a file is not readable as the format that its name says.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(inspect, paths, names_of(paths), stamps))
    return [file for file, _ in found], [schema for _, schema in found]


def inspect(path: str, name: str, stamp: str | None = None) -> tuple[InputFile, pa.Schema]:
    """Count a file's rows, hash its contents and read its schema.

    Raises:
        InputError: the file is not readable as the format that its name says.
    """
    with unreadable_is_an_error(path):
        rows, digest, schema = _parquet(path) if is_parquet(path) else inspect_json_lines(path)
    return InputFile(path=path, name=name, num_rows=rows, digest=digest, stamp=stamp), schema


def common_schema(files: list[InputFile], schemas: list[pa.Schema]) -> pa.Schema:
    """The schema of all files, which must have the same columns with the same types.

    A column that holds only nulls in one file may have any type in the others. JSON Lines declare
    no schema, so theirs is the union of the columns of all JSON Lines files, with types widened to
    fit every line.

    Raises:
        InputError: a column is missing in one file or has another type there; the message names
            both files.
    """
    loose = [i for i, file in enumerate(files) if not is_parquet(file.path)]
    if loose:
        widened = unify([schemas[i] for i in loose], files[loose[-1]].path)
        schemas = [widened if i in loose else s for i, s in enumerate(schemas)]
    # The first file may declare a column non-nullable, and another hold nulls in it. That must not
    # stop the job: at most, a null makes its row an error row.
    first = pa.schema([field.with_nullable(True).remove_metadata() for field in schemas[0]])
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        for column in dict.fromkeys([*first.names, *schema.names]):
            here = schema.field(column).type if column in schema.names else "no such column"
            there = first.field(column).type if column in first.names else "no such column"
            if there == pa.null() and isinstance(here, pa.DataType):  # only nulls so far
                index = first.get_field_index(column)
                first = first.set(index, pa.field(column, here))
            elif here != there and here != pa.null():
                raise InputError(
                    f"data.path: the files disagree on column {column!r}: {here} in {file.path}, "
                    f"{there} in {files[0].path}; make them alike, or name fewer files"
                )
    return first


def _stamp(path: str) -> str | None:
    with unreadable_is_an_error(path):
        fs, path_in_fs = fs_and_path(path)
        info = fs.info(path_in_fs)
    names = ("e_tag", "ETag", "etag", "mtime", "last_modified", "last_commit")
    tags = (info.get(name) for name in names)
    tag = next((tag for tag in tags if tag is not None), None)
    return None if tag is None else f"{info['size']} {tag}"


def _list_entry(entry: str) -> list[str]:
    with unreadable_is_an_error(entry):
        fs, root = fs_and_path(os.path.expanduser(entry))
        if fs.isfile(root):
            paths = [root]
        elif fs.isdir(root):
            found = fs.find(root)
            paths = [p for p in found if not _is_hidden(p, root) and not p.endswith(".json")]
        elif any(sign in root for sign in "*?["):
            paths = [p for p in fs.glob(root) if not fs.isdir(p) and not _is_hidden(p, "")]
        else:
            raise InputError(f"data.path={entry}: no such file or folder; check the spelling")
    readable = sorted(path for path in paths if path.lower().endswith(READABLE))
    if not readable:
        raise InputError(
            f"data.path={entry}: no file that ends in one of {', '.join(READABLE)} "
            f"({len(paths)} other files); name a Parquet or JSON Lines file"
        )
    return readable if is_local(fs) else [fs.unstrip_protocol(path) for path in readable]


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
    return "/".join(parts[-depth:])


def _parquet(path: str) -> tuple[int, str, pa.Schema]:
    with open_for_reading(path) as file:
        parquet = pq.ParquetFile(file)
        size = file.seek(0, os.SEEK_END)
        file.seek(size - 8)
        footer_size = int.from_bytes(file.read(4), "little")
        file.seek(0 if size <= WHOLE_BYTES else size - 8 - footer_size)
        digest = _digest(str(size).encode() + file.read())
        return parquet.metadata.num_rows, digest, parquet.schema_arrow


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
