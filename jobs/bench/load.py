"""Measures host memory and speed of loading a checkpoint, on one thread of a fresh process.

Writes a synthetic checkpoint (jobs/bench/synthetic.py), then loads it whole in each dtype, and as
rank 0 of 2 in the first dtype. Every loaded value is compared with what was written before a figure
is printed. 1 GB is 10^9 bytes. Speeds count the checkpoint's bytes that belong to the rank (`fill`:
the model's bytes in memory).

peak    highest resident memory during the first load, minus what was resident before (the kernel's
        high-water mark). Includes pages of a file while it is mapped, although they are the
        kernel's page cache and would exist anyway.
anon    the part of the peak that is private to the process (anonymous memory), read every 2 ms.
bound   the limit for the peak: the model, its largest tensor as stored, and 1 GB.
first   loading with the files evicted from the page cache.
second  loading with the files in the page cache: the best round.
read    reading the cached files into one buffer that is reused.
fill    writing to as much fresh memory as the model takes: the limit that page faults set.
floor   seconds of read plus fill. Without huge pages and overlap, a load cannot be faster. The
        ratio second/floor is the median over rounds, each of which runs second, read and fill.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from engine.errors import UserError
from jobs.bench.loading import GB, in_fresh_process
from jobs.bench.provenance import provenance
from jobs.bench.synthetic import checkpoint_bytes, raw_config, write_checkpoint


def run(
    *, gigabytes: float, families: list[str], dtypes: list[str], rounds: int, folder: Path | None
) -> dict[str, Any]:
    """Write, load, print the table, return the report.

    Raises:
        RuntimeError: a loaded value differs from the one that was written.
        UserError: `folder` has no room for the checkpoint.
    """
    cases = []
    for family in families:
        num_bytes = checkpoint_bytes(raw_config(family, int(gigabytes * GB)))
        print(f"{family}: {num_bytes / GB:.3f} GB, one thread")
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _check_room(Path(temporary), num_bytes)
            write_checkpoint(Path(temporary), family, num_bytes)
            for num_ranks, dtype in [*((1, dtype) for dtype in dtypes), (2, dtypes[0])]:
                loaded = in_fresh_process(Path(temporary), dtype, num_ranks, rounds)
                if loaded.wrong:
                    raise RuntimeError(
                        f"{family} {dtype}: loaded values are wrong in {loaded.wrong[:5]}"
                    )
                cases.append({"family": family} | loaded.figures())
        print_table(cases[-len(dtypes) - 1 :])
    return {
        "benchmark": "load",
        "gigabytes": gigabytes,
        "num_threads": 1,
        "cases": cases,
        **provenance("cpu"),
    }


def print_table(cases: list[dict[str, Any]]) -> None:
    sizes = ("model", "share", "largest", "disk", "peak", "anon", "bound")
    speeds = ("first", "second", "read", "fill")
    print(f"{'ranks dtype':16}" + "".join(f"{name + ' GB':>11}" for name in sizes))
    for case in cases:
        cells = "".join(f"{case[f'{name}_bytes'] / GB:11.3f}" for name in sizes)
        print(f"{case['num_ranks']:5} {case['dtype']:10}{cells}")
    print(f"{'':16}" + "".join(f"{name + ' GB/s':>13}" for name in speeds) + "  second/floor")
    for case in cases:
        cells = "".join(f"{case[f'{name}_gb_per_s']:13.2f}" for name in speeds)
        over = case["second_over_floor"]
        print(f"{case['num_ranks']:5} {case['dtype']:10}{cells}{over:14.2f}")


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.1 * num_bytes:
        raise UserError(
            f"--folder {folder.parent} has {free / GB:.1f} GB free, the checkpoint takes "
            f"{num_bytes / GB:.1f}: name another folder, or fewer --gigabytes"
        )
