"""`python -m pipeline.status RUN`: how far is a run? During, after, and when it broke.

Only the files are asked, so it also works on another machine that sees the folder. Exit code 0: all
parts are done; 1: some are left; 2: no run is there.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable

import pyarrow.parquet as pq

from pipeline.folder import RunFolder
from pipeline.plan import Plan, load
from pipeline.stats import add_up, read_stats


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipeline.status", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="the output folder of a run")
    folder = RunFolder(parser.parse_args().run)
    try:
        plan = load(folder)
    except ValueError as error:
        print(f"pipeline.status: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    lines, is_done = report(plan, folder)
    print("\n".join(f"{name:<12}{value}" for name, value in lines))
    raise SystemExit(0 if is_done else 1)


def report(plan: Plan, folder: RunFolder) -> tuple[list[tuple[str, str]], bool]:
    """What there is to say, line by line; and whether all parts are done."""
    broken = {part: fault for part in folder.parts_done() if (fault := _fault(folder, part))}
    done = folder.parts_done() - broken.keys()
    left = sorted({part.index for part in plan.parts} - done)
    totals = add_up(read_stats(folder, done))
    num_rows = sum(plan.parts[part].num_outcomes for part in done)
    rate, tpf = totals.tokens_per_s, totals.tokens_per_forward
    lines = [
        ("run", f"{folder.path}, planned {_planned_at(folder)}"),
        ("model", plan.model_path),
        ("parts", f"{len(done)} of {len(plan.parts)} done"),
        ("rows", f"{num_rows} of {plan.num_outcomes} done ({num_rows / plan.num_outcomes:.0%})"),
        ("failed", f"{totals.num_failed}"),
        ("tokens/s", f"{rate:,.0f} (finished parts)" if rate else "not known yet"),
        ("TPF", f"{tpf:.2f} tokens per forward" if tpf else "not known yet"),
        ("last part", _age(folder, done)),
        ("left", f"parts {_ranges(left)}" if left else "nothing"),
    ]
    lines += [("broken", f"{fault}: remove it, and run again") for fault in broken.values()]
    if not left:
        is_finished = folder.summary_file.exists()
        summed_up = "summary.json and README.md are written"
        lines.append(("summary", summed_up if is_finished else "missing: run again to write it"))
    return lines, not left


def _planned_at(folder: RunFolder) -> str:
    return str(json.loads(folder.plan_file.read_text(encoding="utf-8")).get("planned_at"))


def _fault(folder: RunFolder, part: int) -> str | None:
    file = folder.data_file(part)
    try:
        pq.read_metadata(file)
    except (OSError, ValueError) as error:
        return f"{file.name} cannot be read ({error})"
    return None


def _age(folder: RunFolder, done: Iterable[int]) -> str:
    newest = max((folder.data_file(part).stat().st_mtime for part in done), default=None)
    if newest is None:
        return "none yet"
    return f"{time.time() - newest:,.0f} s ago"


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 -> 1-3, 7"""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:20]]
    return ", ".join(shown) + (", ..." if len(ranges) > 20 else "")


if __name__ == "__main__":
    main()
