"""`python -m pipeline.status RUN` shows how much of a run is done, during it and after it stopped.

`--watch` repeats this until all parts are done; `--failed` lists the failed rows instead. Only the
run's files are read, so it also works on another machine that can read the folder. Exit code 0: all
parts are done; 1: some are not; 2: RUN is not a run, or cannot be read.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator

from upath import UPath

from engine.errors import UserError
from pipeline.plan.run_json import Plan, load
from pipeline.report.outcomes import Outcomes
from pipeline.run_folder.files import Place, changed_at, exists, open_parquet, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import duration, number, one_line
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import Totals, add_up, failures

WATCH_S = 2.0
NUM_KINDS, NUM_ROWS = 20, 100
"""With --failed, at most this many kinds of error and rows are listed; the others are counted."""
MAGIC = b"PAR1"
"""Every complete Parquet file ends with these bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipeline.status", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="the output of a run: a folder, or an address such as s3://BUCKET/FOLDER")
    parser.add_argument("--watch", action="store_true", help="repeat until the run is done")
    parser.add_argument("--failed", action="store_true", help="list the failed rows")
    args = parser.parse_args()
    clear = "\x1b[2J\x1b[H" if args.watch and sys.stdout.isatty() else ""
    is_done = False
    try:
        folder = RunFolder(args.run)
        status = RunStatus(load(folder), folder)
        while True:
            is_done = status.update()
            lines = status.failed_lines() if args.failed else status.lines()
            print(clear + "\n".join(lines), flush=True)
            if is_done or not args.watch:
                break
            time.sleep(WATCH_S)
    except (UserError, OSError) as error:
        print(f"pipeline.status: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print()
    raise SystemExit(0 if is_done else 1)


class RunStatus:
    """The state of a run, read from its files. A part that was found complete is not opened again.

    A part is broken if its file in data/ cannot be read; it does not count as done.
    """

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self._plan = plan
        self._folder = folder
        self._done: set[int] = set()
        self._broken: dict[int, str] = {}
        """Part -> what is wrong with its file."""
        self._failed: dict[int, int] = {}
        """Part -> the number of its failed rows."""
        self._totals = Totals()

    def update(self) -> bool:
        """Read the files again; whether all parts are done."""
        if not self._plan.is_final:
            self._plan = load(self._folder)
        found = self._folder.parts_done() & {part.index for part in self._plan.parts}
        new = sorted(found - self._done)
        self._broken = {part: fault for part in new if (fault := self._fault(part))}
        self._done = found - self._broken.keys()
        timeline = read_timeline(self._folder)
        self._failed = failures(self._folder, timeline, self._done)
        self._totals = add_up(timeline)
        return len(self._done) == len(self._plan.parts)

    def lines(self) -> list[str]:
        """The overview that is printed without --failed."""
        return [f"{name:<12}{value}" for name, value in self._overview()]

    def failed_lines(self) -> list[str]:
        """The list that is printed with --failed: error messages with their counts, then rows."""
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
        lines = [f"{num_failed:,} of {self._num_rows:,} finished rows failed"]
        kinds = outcomes.errors(NUM_KINDS)
        lines += [f"{kind.count:>8,} x {one_line(kind.message)}" for kind in kinds]
        if len(outcomes.kinds) > NUM_KINDS:
            lines.append(f"         and {len(outcomes.kinds) - NUM_KINDS:,} more kinds of error")
        lines += ["", "row_id, sample_index: error", *rows] if rows else []
        if num_failed > len(rows):
            more = num_failed - len(rows)
            lines.append(f"and {more:,} more rows: see the column `error` in {self._folder.data}")
        return lines

    def _overview(self) -> Iterator[tuple[str, str]]:
        plan, folder, totals = self._plan, self._folder, self._totals
        left = sorted({part.index for part in plan.parts} - self._done)
        rate = totals.rows_per_s if self._num_rows else None
        yield "run", f"{folder.path}, planned {_planned_at(folder)}"
        yield "model", plan.model_path
        yield "parts", f"{len(self._done)} of {len(plan.parts)} done{plan.parts_note}"
        share = self._num_rows / plan.num_outcomes
        yield "rows", f"{self._num_rows} of {plan.num_outcomes} done ({share:.0%})"
        yield "failed", f"{sum(self._failed.values())}"
        yield "rows/s", number(rate) if rate else "not known yet"
        tokens = totals.tokens_per_s
        yield "tokens/s", f"{number(tokens)}, including loading" if tokens else "not known yet"
        tpf = totals.tokens_per_forward
        yield "TPF", f"{tpf:.2f} tokens per forward" if tpf else "not known yet"
        batch = totals.mean_sequences
        yield "batch", f"{batch:.1f} sequences per forward" if batch else "not known yet"
        yield "last part", self._age()
        yield "left", f"parts {_ranges(left)}" if left else "nothing"
        if left and rate:
            left_s = (plan.num_outcomes - self._num_rows) / rate
            yield "time left", f"{duration(left_s)} at this rate"
        for fault in self._broken.values():
            yield "broken", f"{fault}: remove this file and run the same command again"
        if not left:
            is_finished = exists(folder.summary_file)
            written = f"summary.json, README.md, {folder.report_file.name} are written"
            missing = "missing: run the same command again to write it"
            yield "summary", written if is_finished else missing

    @property
    def _num_rows(self) -> int:
        """Output rows of the parts that are done."""
        return sum(self._plan.parts[part].num_outcomes for part in self._done)

    def _fault(self, part: int) -> str | None:
        """What is wrong with the part's file; None if nothing is."""
        file = self._folder.data_file(part)
        if _ends_well(file):
            return None
        try:
            open_parquet(file)
        except (OSError, ValueError) as error:
            return f"{file.name} cannot be read ({error})"
        return None

    def _age(self) -> str:
        """How long ago the last part was finished. data/ changes when a part is moved into it."""
        if not self._done:
            return "none yet"
        return f"{duration(max(0.0, time.time() - changed_at(self._folder.data)))} ago"


def _ends_well(file: Place) -> bool:
    """Whether the file ends like a complete Parquet file. That is much cheaper than reading its
    footer, and enough for a file that was moved into data/ as a whole. An object on a store is
    always complete."""
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
    for value in numbers:
        if ranges and ranges[-1][1] == value - 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:20]]
    return ", ".join(shown) + (", ..." if len(ranges) > 20 else "")


if __name__ == "__main__":
    main()
