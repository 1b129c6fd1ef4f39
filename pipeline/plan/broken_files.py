"""Finds files of a run that are not what this run wrote, before a start takes them for done.

A disk that was full, a copy that was cut short or a file from elsewhere leaves a part that cannot
be read, or that has other rows. The start moves such files to broken/, and says so; the parts among
them are open again. Of a part in data/ the footer is read, which tells its rows and columns (60,000
parts: some seconds); of the files in stats/ and timeline/, whether they end as Parquet does.

On a store nothing is looked at: an object is stored whole or not at all, and 60,000 requests would
take minutes. A foreign part there is found when the run is finished (pipeline/report/finish.py).
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import pyarrow as pa

from pipeline.plan.run_json import Plan
from pipeline.run_folder.files import Place, is_whole_parquet, names, open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import THREADS

NUM_NAMED = 10
"""At most this many files are named."""
NOT_PLANNED = "is not in the plan"


def set_aside_broken(plan: Plan, folder: RunFolder) -> list[str]:
    """Move the broken and foreign files of a run on a disk to broken/, and say which: of parts,
    only those of this launch's share (`plan` is that of the whole run). Returns what was wrong with
    each."""
    if not isinstance(folder.path, Path):
        return []
    faults = []
    for file, fault in [*_broken_parts(plan, folder), *_broken_figures(folder)]:
        try:
            folder.set_aside(file)
        except FileNotFoundError:  # the start of another share has done it
            continue
        faults.append(f"{file.parent.name}/{file.name} {fault}")
    for fault in faults[:NUM_NAMED]:
        is_planned = fault.startswith("data/") and not fault.endswith(NOT_PLANNED)
        again = "; its rows are generated again" if is_planned else ""
        _say(f"{fault}: moved to {folder.broken}{again}")
    if len(faults) > NUM_NAMED:
        _say(f"{len(faults) - NUM_NAMED} more such files: moved to {folder.broken}")
    return faults


def _broken_parts(plan: Plan, folder: RunFolder) -> Iterator[tuple[Place, str]]:
    """Files in data/, and what is wrong with them."""
    done = sorted(part for part in folder.parts_done() if _is_ours(part, folder))
    schema = plan.output_schema
    files = [folder.data_file(part) for part in done]
    wanted = [plan.parts[part].num_outcomes if part < len(plan.parts) else None for part in done]
    with ThreadPoolExecutor(THREADS) as pool:
        faults = list(pool.map(_fault, files, wanted, repeat(schema)))
    return ((file, fault) for file, fault in zip(files, faults, strict=True) if fault)


def _is_ours(part: int, folder: RunFolder) -> bool:
    return folder.share is None or folder.share.has(part)


def _fault(file: Place, num_rows: int | None, schema: pa.Schema) -> str | None:
    """What is wrong with a part's file; None if nothing is. `num_rows` is None if the plan has no
    such part."""
    if num_rows is None:
        return NOT_PLANNED
    try:
        if not is_whole_parquet(file):
            return "is not a complete Parquet file"
        opened = open_parquet(file)
        if opened.metadata.num_rows != num_rows:
            return f"has {opened.metadata.num_rows} rows, not {num_rows}"
        if not opened.schema_arrow.equals(schema):
            return "has other columns than planned"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    return None


def _broken_figures(folder: RunFolder) -> Iterator[tuple[Place, str]]:
    """Files in stats/ and timeline/ that are cut short."""
    for place in (folder.stats, folder.timeline):
        files = [place / name for name in names(place) if name.endswith(".parquet")]
        with ThreadPoolExecutor(THREADS) as pool:
            whole = list(pool.map(_is_whole_or_gone, files))
        for file, is_whole in zip(files, whole, strict=True):
            if not is_whole:
                yield file, "is not a complete Parquet file; the figures are without it"


def _is_whole_or_gone(file: Place) -> bool:
    try:
        return is_whole_parquet(file)
    except FileNotFoundError:  # the start of another share has set it aside
        return True


def _say(message: str) -> None:
    print(f"pipeline.run: {message}", file=sys.stderr, flush=True)
