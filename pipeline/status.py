"""`python -m pipeline.status RUN` shows how much of a run is done, during it and after it stopped.

It also says who is at work on it; if nobody is, since when not, and which command resumes it.
`--watch` repeats this until all parts are done, or nobody has been at work for a minute; `--failed`
lists the failed rows instead. Only the run's files are read, so it also works on another machine
that can read the folder. Exit code 0: all parts are done; 1: some are not; 2: RUN is not a run, or
cannot be read.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator

from pipeline.plan.run_json import Plan, load
from pipeline.report.outcomes import Outcomes
from pipeline.run_folder.at_work import at_work
from pipeline.run_folder.files import (
    changed_at,
    exists,
    is_whole_parquet,
    open_parquet,
    read_text,
)
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import duration, number, one_line
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import Totals, add_up, failures
from pipeline.workers.refusals import show, why_not_read

WATCH_S = 2.0
NUM_KINDS, NUM_ROWS = 20, 100
"""With --failed, at most this many kinds of error and rows are listed; the others are counted."""
ABANDONED_S = 60.0
"""--watch ends if nobody has been at work for this long: a launcher may restart its workers."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipeline.status", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "run", help="the output of a run: a folder, or an address such as s3://BUCKET/FOLDER"
    )
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
            show(clear + "\n".join(lines))
            if is_done or not args.watch:
                break
            if status.is_abandoned():
                show("pipeline.status: nobody is at work on this run, so --watch ends")
                break
            time.sleep(WATCH_S)
    except Exception as error:
        print(f"pipeline.status: {why_not_read(error, args.run)}", file=sys.stderr)
        raise SystemExit(2) from error
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
        self._at_work = at_work(folder)

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
        self._at_work = at_work(self._folder)
        return len(self._done) == len(self._plan.parts)

    def is_abandoned(self) -> bool:
        """Whether nobody is at work, and has not been for a while."""
        silent_s = self._at_work.silent_s
        is_silent = silent_s is None or silent_s > ABANDONED_S
        return self._at_work.is_held is False and is_silent

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
        yield "at work", self._who()
        yield "left", f"parts {_ranges(left)}" if left else "nothing"
        if left and rate:
            left_s = (plan.num_outcomes - self._num_rows) / rate
            yield "time left", f"{duration(left_s)} at this rate"
        for fault in self._broken.values():
            yield "broken", f"{fault}: the next start generates its rows again"
        is_finished = not left and exists(folder.summary_file)
        if not left:
            written = f"summary.json, README.md, {folder.report_file.name} are written"
            missing = "missing: run the same command again to write it"
            yield "summary", written if is_finished else missing
        if self._at_work.is_held is False and not is_finished:
            yield "resume", self._resume()

    def _who(self) -> str:
        """Who is at work, or since when nobody is."""
        now = self._at_work
        last = "" if now.silent_s is None else f"; last sign of life {duration(now.silent_s)} ago"
        if now.is_held:
            return f"{now.holder or 'holder unknown'}{last}"
        launch = "" if now.launch is None else now.launch.holder
        before = f"; the last launch was {holder}" if (holder := now.holder or launch) else ""
        if now.is_held is None:
            return f"cannot be seen from this machine{last}{before}"
        since = "" if now.silent_s is None else f" for {duration(now.silent_s)}"
        return f"nobody{since}{before}"

    def _resume(self) -> str:
        """The line for a shell that resumes the run."""
        launch = self._at_work.launch
        return "the same command as before" if launch is None else launch.resume_in(self._folder)

    @property
    def _num_rows(self) -> int:
        """Output rows of the parts that are done."""
        return sum(self._plan.parts[part].num_outcomes for part in self._done)

    def _fault(self, part: int) -> str | None:
        """What is wrong with the part's file; None if nothing is. Its footer is read only if it
        does not end well: a start has checked it."""
        file = self._folder.data_file(part)
        if is_whole_parquet(file):
            return None
        try:
            open_parquet(file)
        except (OSError, ValueError) as error:
            return f"{file.name} cannot be read ({error})"
        return None

    def _age(self) -> str:
        """How long ago the last part was finished. data/ changes when a part is moved into it."""
        changed = changed_at(self._folder.data)
        if not self._done or changed is None:
            return "none yet"
        return f"{duration(max(0.0, time.time() - changed))} ago"


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
