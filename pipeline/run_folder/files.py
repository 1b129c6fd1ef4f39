"""Read the files of a run, with the same functions for a local disk (Path) and for an object store
(UPath)."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from upath import UPath

from engine.errors import UserError
from pipeline.run_folder import store

MAGIC = b"PAR1"
"""Every complete Parquet file begins and ends with these bytes. Before those at its end stand its
footer and the footer's length."""
LENGTH_BYTES = 4
MIN_BYTES = 2 * len(MAGIC) + LENGTH_BYTES

Place = Path | UPath
"""The address of a run's file or folder: Path on a local disk, UPath on a store."""


def place(address: str | Place) -> Place:
    """The address of a run folder as a Path, or as a UPath if it is on a store.

    Raises:
        UserError: it is a URL of something else, or contains credentials.
    """
    if not isinstance(address, str):
        return address
    if "://" not in address:
        return Path(address)
    if not store.is_stored(address):
        raise UserError(
            f"output={address}: give a folder, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or "
            "az://CONTAINER/FOLDER"
        )
    if "@" in address:
        scheme, _, _ = address.partition("://")
        raise UserError(
            f"output={scheme}://...@...: an address holds no keys; set {store.KEYS[scheme]}, and "
            "give the address without them"
        )
    return UPath(address)


def exists(file: Place) -> bool:
    return store.exists(file) if isinstance(file, UPath) else file.exists()


def read_text(file: Place) -> str:
    if isinstance(file, UPath):
        return store.read(file).decode("utf-8")
    return file.read_text(encoding="utf-8")


def names(folder: Place) -> list[str]:
    """The sorted names of the files in a folder, from one listing; empty if it does not exist."""
    if isinstance(folder, UPath):
        return sorted(store.listing(folder))
    return sorted(file.name for file in folder.glob("*"))


def entries(folder: Place) -> list[str]:
    """The sorted names of the files and folders in a folder, with a / after those of folders; empty
    if it does not exist."""
    if isinstance(folder, UPath):
        return sorted([*store.listing(folder), *(f"{name}/" for name in store.folders(folder))])
    if not folder.exists():
        return []
    return sorted(f"{its.name}/" if its.is_dir() else its.name for its in folder.iterdir())


def changed_at(folder: Place) -> float | None:
    """When a file was last moved or written to a folder, in seconds since the epoch by the clock of
    the disk or store; None if it has no file."""
    if isinstance(folder, UPath):
        return max(store.listing(folder).values(), default=None)
    return folder.stat().st_mtime if next(folder.glob("*"), None) else None


def open_parquet(file: Place) -> pq.ParquetFile:
    """Open a Parquet file. From a store, only the byte ranges that are read are fetched."""
    return pq.ParquetFile(store.open_object(file) if isinstance(file, UPath) else file)


def is_whole_parquet(file: Place) -> bool:
    """Whether the file ends as a complete Parquet file does. That is much cheaper than
    reading its footer. An object on a store is always complete."""
    if isinstance(file, UPath):
        return True
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        if size < MIN_BYTES:
            return False
        stream.seek(-(LENGTH_BYTES + len(MAGIC)), 2)
        footer_bytes, magic = int.from_bytes(stream.read(LENGTH_BYTES), "little"), stream.read()
        return magic == MAGIC and 0 < footer_bytes <= size - MIN_BYTES


def read_tables(files: Sequence[Place], schema: pa.Schema, columns: list[str]) -> pa.Table:
    """Read many small Parquet files into one table; a column that a file lacks is null there."""
    if not files:
        return pa.schema([schema.field(name) for name in columns]).empty_table()
    objects = [file for file in files if isinstance(file, UPath)]
    if not objects:
        return ds.dataset([str(file) for file in files], schema=schema).to_table(columns=columns)
    tables = [
        pq.read_table(pa.BufferReader(data), schema=schema, columns=columns)
        for data in store.read_all(objects)
    ]
    return pa.concat_tables(tables)
