"""Host memory and seconds of loading a checkpoint, on one thread of a fresh process.

A synthetic checkpoint is written (jobs/bench/synthetic.py) and loaded whole in each dtype, and as
rank 0 of 2 in the first. What was loaded is compared with what was written, value by value, before
any figure is given. 1 GB is 10^9 bytes; speeds are of the checkpoint's bytes that belong to the
rank.

peak    the most resident memory during the first load, over what was resident before: the kernel's
        own high-water mark. It counts the pages of a file while they are mapped, though they are
        the disk's cache and would be there without us.
anon    of that, what the process alone holds: sampled every 2 ms.
bound   what the peak must not pass: the model, its largest tensor as stored, and 1 GB.
first   with the files out of the disk's cache.
second  with the files in it: the best of the rounds.
read    a plain read of the cached files into one buffer, over and over.
fill    a plain write to memory that was never touched, as much as the model has: what the kernel's
        page faults allow.
floor   seconds of read and of fill together, the least that a load without huge pages can take but
        for overlap: the ratio to it is the median of the rounds, in which the three take turns.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from jobs.bench.loading import GB, in_fresh_process
from jobs.bench.synthetic import checkpoint_bytes, raw_config, write_checkpoint
from jobs.bench.workload import provenance


def run(
    *, gigabytes: float, families: list[str], dtypes: list[str], rounds: int, folder: Path | None
) -> dict[str, Any]:
    """Write, load, print the table, return the report.

    Raises:
        RuntimeError: what was loaded is not what was written.
        ValueError: `folder` has no room for the checkpoint.
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
                    raise RuntimeError(f"{family} {dtype}: not as written: {loaded.wrong[:5]}")
                cases.append({"family": family} | loaded.figures())
        show(cases[-len(dtypes) - 1 :])
    return {
        "benchmark": "load",
        "gigabytes": gigabytes,
        "num_threads": 1,
        "cases": cases,
        **provenance("cpu"),
    }


def show(cases: list[dict[str, Any]]) -> None:
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
        raise ValueError(
            f"--folder {folder.parent} has {free / GB:.1f} GB free, the checkpoint takes "
            f"{num_bytes / GB:.1f}: name another folder, or fewer --gigabytes"
        )
