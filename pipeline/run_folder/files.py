"""How is a file of a run read, on a disk (Path) or on a store (UPath)?"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from upath import UPath

from pipeline.run_folder import store

Place = Path | UPath


def place(address: str | Place) -> Place:
    """
    Raises:
        ValueError: an address that no run can be at.
    """
    if not isinstance(address, str):
        return address
    if "://" not in address:
        return Path(address)
    if not address.startswith(store.S3):
        raise ValueError(f"output={address}: give a folder, or s3://BUCKET/FOLDER")
    if "@" in address:
        raise ValueError(
            "output=s3://...@...: an address holds no keys; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, and give output=s3://BUCKET/FOLDER"
        )
    return UPath(address)


def exists(file: Place) -> bool:
    return store.exists(file) if isinstance(file, UPath) else file.exists()


def read_text(file: Place) -> str:
    if isinstance(file, UPath):
        return store.read(file).decode("utf-8")
    return file.read_text(encoding="utf-8")


def names(folder: Place) -> list[str]:
    """Those in a folder, sorted, from one listing; none where there is no folder."""
    if isinstance(folder, UPath):
        return sorted(store.listing(folder))
    return sorted(file.name for file in folder.glob("*"))


def changed_at(folder: Place) -> float:
    """When a file was last put into a folder that has some, by the clock of where it stands."""
    if isinstance(folder, UPath):
        return max(store.listing(folder).values())
    return folder.stat().st_mtime


def open_parquet(file: Place) -> pq.ParquetFile:
    """Of an object only what is asked for is fetched."""
    return pq.ParquetFile(store.ObjectFile(file) if isinstance(file, UPath) else file)


def read_tables(files: Sequence[Place], schema: pa.Schema, columns: list[str]) -> pa.Table:
    """Many small files as one table; a column that one lacks is null."""
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
