"""What is in the input: which files, how many rows, which columns? Looked at once, by rank 0."""

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
from pipeline.run_folder.store import is_local, open_for_reading, reached

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
"""In a folder, .json is passed over: there it is mostly some tool's own file."""
READABLE = (*PARQUET, *JSON_LINES, *(f"{ending}.gz" for ending in JSON_LINES))
THREADS = 16
"""That look at files, which is mostly waiting."""
WHOLE_BYTES = 64 << 20
"""Files up to this size are hashed whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    path: str
    """As fsspec opens it."""
    name: str
    """Its part of the row ids: the stem, or as much of the path as no other file has."""
    num_rows: int
    digest: str
    """Of the whole text of JSON Lines; of a Parquet file up to WHOLE_BYTES, else of its footer and
    size, so that a large file is not read to plan it."""
    stamp: str | None = None
    """What the file system says of it: size, and time or tag. While it is the same, the file is not
    read again to know that it is."""


def list_inputs(path: str | list[str]) -> list[str]:
    """The files that `data.path` means, sorted within each entry, none twice.

    Raises:
        InputError: an entry that is not there, cannot be reached, or holds no readable file.
    """
    entries = [path] if isinstance(path, str) else path
    found = [file for entry in entries for file in _list_entry(entry)]
    return list(dict.fromkeys(found))


def names_of(paths: list[str]) -> list[str]:
    """A name for each file that no other has: stem, file name, or with the folders before it."""
    depth = [0] * len(paths)
    while True:
        names = [_name(path, d) for path, d in zip(paths, depth, strict=True)]
        count = Counter(names)
        twice = [i for i, name in enumerate(names) if count[name] > 1]
        if not twice:
            return names
        for i in twice:
            depth[i] += 1


def is_parquet(path: str) -> bool:
    return path.lower().endswith(PARQUET)


def stamps_of(paths: list[str]) -> list[str | None]:
    """Of each file; None where the file system tells neither time nor tag."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_stamp, paths))


def inspect_all(
    paths: list[str], stamps: list[str | None]
) -> tuple[list[InputFile], list[pa.Schema]]:
    """
    Raises:
        InputError: as `inspect` says.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(inspect, paths, names_of(paths), stamps))
    return [file for file, _ in found], [schema for _, schema in found]


def inspect(path: str, name: str, stamp: str | None = None) -> tuple[InputFile, pa.Schema]:
    """A file's rows and columns.

    Raises:
        InputError: not readable as what its name says.
    """
    with unreadable_is_an_error(path):
        rows, digest, schema = _parquet(path) if is_parquet(path) else inspect_json_lines(path)
    return InputFile(path=path, name=name, num_rows=rows, digest=digest, stamp=stamp), schema


def common_schema(files: list[InputFile], schemas: list[pa.Schema]) -> pa.Schema:
    """The columns that all files agree on; one that holds nothing but nulls in a file agrees.

    JSON Lines state no types: theirs are widened to fit all lines of all files.

    Raises:
        InputError: a column is missing in a file, or of another type; both files are named.
    """
    loose = [i for i, file in enumerate(files) if not is_parquet(file.path)]
    if loose:
        widened = unify([schemas[i] for i in loose], files[loose[-1]].path)
        schemas = [widened if i in loose else s for i, s in enumerate(schemas)]
    # A null in a later file is a fault of its row, whatever the first file says of nulls.
    first = pa.schema([field.with_nullable(True).remove_metadata() for field in schemas[0]])
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        for column in dict.fromkeys([*first.names, *schema.names]):
            here = schema.field(column).type if column in schema.names else "no such column"
            there = first.field(column).type if column in first.names else "no such column"
            if there == pa.null() and isinstance(here, pa.DataType):  # nothing but nulls so far
                place = first.get_field_index(column)
                first = first.set(place, pa.field(column, here))
            elif here != there and here != pa.null():
                raise InputError(
                    f"data.path: the files disagree on column {column!r}: {here} in {file.path}, "
                    f"{there} in {files[0].path}; make them alike, or name fewer files"
                )
    return first


def _stamp(path: str) -> str | None:
    with unreadable_is_an_error(path):
        fs, its = reached(path)
        info = fs.info(its)
    tags = (info.get(name) for name in ("ETag", "etag", "mtime", "LastModified", "last_commit"))
    tag = next((tag for tag in tags if tag is not None), None)
    return None if tag is None else f"{info['size']} {tag}"


def _list_entry(entry: str) -> list[str]:
    with unreadable_is_an_error(entry):
        fs, root = reached(os.path.expanduser(entry))
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
            f"({len(paths)} others); name a Parquet or JSON Lines file"
        )
    return readable if is_local(fs) else [fs.unstrip_protocol(path) for path in readable]


def _is_hidden(path: str, root: str) -> bool:
    """Within a folder, any part of the path counts; of what a glob names, only the file."""
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
