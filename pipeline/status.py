"""`python -m pipeline.status RUN`: how far is a run? During, after, and when it broke.

`--watch` looks again and again until all parts are done; `--failed` lists the failed rows instead.
Only the files are asked, so it also works on another machine that sees the folder. Exit code 0: all
parts are done; 1: some are left; 2: no run is there.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator

from upath import UPath

from pipeline.plan.run_json import Plan, load
from pipeline.report.outcomes import Outcomes
from pipeline.run_folder.files import Place, changed_at, exists, open_parquet, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import duration, number, one_line
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import Totals, add_up, failures

WATCH_S = 2.0
NUM_KINDS, NUM_ROWS = 20, 100
"""Of failed rows that are listed; the others are counted."""
MAGIC = b"PAR1"
"""What every whole Parquet file ends with."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipeline.status", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="the output of a run: a folder, or s3://BUCKET/FOLDER")
    parser.add_argument("--watch", action="store_true", help="look again until the run is done")
    parser.add_argument("--failed", action="store_true", help="list the failed rows")
    asked = parser.parse_args()
    clear = "\x1b[2J\x1b[H" if asked.watch and sys.stdout.isatty() else ""
    is_done = False
    try:
        folder = RunFolder(asked.run)
        standing = Standing(load(folder), folder)
        while True:
            is_done = standing.look()
            lines = standing.failed_lines() if asked.failed else standing.lines()
            print(clear + "\n".join(lines), flush=True)
            if is_done or not asked.watch:
                break
            time.sleep(WATCH_S)
    except (ValueError, OSError) as error:
        print(f"pipeline.status: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print()
    raise SystemExit(0 if is_done else 1)


class Standing:
    """What the files say of a run. A part that was found whole is not opened again."""

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self._plan = plan
        self._folder = folder
        self._done: set[int] = set()
        self._broken: dict[int, str] = {}
        self._failed: dict[int, int] = {}
        self._totals = Totals()

    def look(self) -> bool:
        """Whether all parts are done."""
        if not self._plan.is_final:
            self._plan = load(self._folder)
        there = self._folder.parts_done() & {part.index for part in self._plan.parts}
        new = sorted(there - self._done)
        self._broken = {part: fault for part in new if (fault := self._fault(part))}
        self._done = there - self._broken.keys()
        timeline = read_timeline(self._folder)
        self._failed = failures(self._folder, timeline, self._done)
        self._totals = add_up(timeline)
        return len(self._done) == len(self._plan.parts)

    def lines(self) -> list[str]:
        return [f"{name:<12}{value}" for name, value in self._said()]

    def failed_lines(self) -> list[str]:
        """Messages with their counts, and the rows."""
        outcomes, rows = Outcomes(), list[str]()
        for part in sorted(self._done):
            if self._failed.get(part) == 0:
                continue
            file = open_parquet(self._folder.data_file(part))
            failed = outcomes.add_errors(file.read(columns=["row_id", "sample_index", "error"]))
            for row in failed.slice(0, NUM_ROWS - len(rows)).to_pylist():
                place = f"{one_line(row['row_id'])} {row['sample_index']}"
                rows.append(f"{place}: {one_line(row['error'])}")
        num_failed = sum(kind.count for kind in outcomes.kinds.values())
        lines = [f"{num_failed:,} rows failed, of {self._num_rows:,} done"]
        kinds = outcomes.errors(NUM_KINDS)
        lines += [f"{kind.count:>8,} x {one_line(kind.message)}" for kind in kinds]
        if len(outcomes.kinds) > NUM_KINDS:
            lines.append(f"         and {len(outcomes.kinds) - NUM_KINDS:,} kinds of error more")
        lines += ["", "row_id, sample_index: error", *rows] if rows else []
        if num_failed > len(rows):
            more = num_failed - len(rows)
            lines.append(f"and {more:,} rows more: the column `error` in {self._folder.data}")
        return lines

    def _said(self) -> Iterator[tuple[str, str]]:
        plan, folder, totals = self._plan, self._folder, self._totals
        left = sorted({part.index for part in plan.parts} - self._done)
        rate = totals.rows_per_s if self._num_rows else None
        yield "run", f"{folder.path}, planned {_planned_at(folder)}"
        yield "model", plan.model_path
        yield "parts", f"{len(self._done)} of {len(plan.parts)} done{plan.what_changes}"
        share = self._num_rows / plan.num_outcomes
        yield "rows", f"{self._num_rows} of {plan.num_outcomes} done ({share:.0%})"
        yield "failed", f"{sum(self._failed.values())}"
        yield "rows/s", number(rate) if rate else "not known yet"
        tokens = totals.tokens_per_s
        yield "tokens/s", f"{number(tokens)}, loading included" if tokens else "not known yet"
        tpf = totals.tokens_per_forward
        yield "TPF", f"{tpf:.2f} tokens per forward" if tpf else "not known yet"
        held = totals.mean_sequences
        yield "batch", f"{held:.1f} sequences per forward" if held else "not known yet"
        yield "last part", self._age()
        yield "left", f"parts {_ranges(left)}" if left else "nothing"
        if left and rate:
            left_s = (plan.num_outcomes - self._num_rows) / rate
            yield "time left", f"{duration(left_s)} at this rate"
        for fault in self._broken.values():
            yield "broken", f"{fault}: remove it, and run again"
        if not left:
            is_finished = exists(folder.summary_file)
            summed_up = f"summary.json, README.md, {folder.report_file.name} are written"
            yield "summary", summed_up if is_finished else "missing: run again to write it"

    @property
    def _num_rows(self) -> int:
        return sum(self._plan.parts[part].num_outcomes for part in self._done)

    def _fault(self, part: int) -> str | None:
        file = self._folder.data_file(part)
        if _ends_well(file):
            return None
        try:
            open_parquet(file)
        except (OSError, ValueError) as error:
            return f"{file.name} cannot be read ({error})"
        return None

    def _age(self) -> str:
        """Of the newest part. data/ itself changes when a part is moved into it."""
        if not self._done:
            return "none yet"
        return f"{duration(max(0.0, time.time() - changed_at(self._folder.data)))} ago"


def _ends_well(file: Place) -> bool:
    """Much cheaper than to read a footer, and enough for a file that was moved here whole. An
    object was written whole, or it is not there."""
    if isinstance(file, UPath):
        return True
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - len(MAGIC)))
        return stream.read() == MAGIC


def _planned_at(folder: RunFolder) -> str:
    return str(json.loads(read_text(folder.plan_file)).get("planned_at"))


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 -> 1-3, 7"""
    ranges: list[list[int]] = []
    for one in numbers:
        if ranges and ranges[-1][1] == one - 1:
            ranges[-1][1] = one
        else:
            ranges.append([one, one])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:20]]
    return ", ".join(shown) + (", ..." if len(ranges) > 20 else "")


if __name__ == "__main__":
    main()
