"""The state of a run, read from its files: what is done, failed and left, who is at work."""

import json
import time
from collections.abc import Iterator

from pipeline.plan.run_json import Plan, load
from pipeline.report.outcomes import Outcomes
from pipeline.report.scores import read_scores
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
from pipeline.stats.starts import identity
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import Totals, add_up, failures
from pipeline.status.slurm_lines import Left
from pipeline.status.submitted import Submissions
from pipeline.status.words import ranges
from pipeline.status.workers import Workers

NUM_KINDS, NUM_ROWS = 20, 100
"""With --failed, at most this many kinds of error and rows are listed; the others are counted."""
ABANDONED_S = 60.0
"""--watch ends if nobody has been at work for this long: a launcher may restart its workers."""


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
        self._workers = Workers(folder)
        self._workers_line: str | None = None
        self._submitted = Submissions(folder)
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
        self._submitted.update()
        is_quiet = self._at_work.is_held is False and not self._submitted.is_running
        self._workers_line = None if is_quiet else self._workers.line(timeline)
        return len(self._done) == len(self._plan.parts)

    def is_abandoned(self) -> bool:
        """Whether nobody is at work, and has not been for a while, nor does a job wait or run."""
        if self._submitted.may_go_on:
            return False
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
        if self._workers_line is not None and left:
            yield "workers", self._workers_line
        yield "left", f"parts {ranges(left)}" if left else "nothing"
        left_s = (plan.num_outcomes - self._num_rows) / rate if left and rate else None
        if left_s is not None:
            yield "time left", f"{duration(left_s)} at this rate"
        yield from self._submitted.lines(Left(parts=left, seconds=left_s))
        yield from self._submitted.hours_line(totals.num_generated_tokens)
        for fault in self._broken.values():
            yield "broken", f"{fault}: the next start generates its rows again"
        is_finished = not left and exists(folder.summary_file)
        if not left:
            written = f"summary.json, README.md, {folder.report_file.name} are written"
            is_coming = self._at_work.is_held or self._submitted.is_live
            again = "missing: run the same command again to write it"
            missing = "not written yet" if is_coming else again
            yield "summary", written if is_finished else missing
        if score := self._score():
            yield "score", score
        if self._at_work.is_held is False and not is_finished and not self._submitted.is_live:
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
        launch = self._submitted.resume(self._at_work.launch)
        return "the same command as before" if launch is None else launch.resume_in(self._folder)

    def _score(self) -> str | None:
        """The score of these rows; None if the run was not scored."""
        try:
            scores = read_scores(self._folder)
        except (ValueError, KeyError, TypeError) as error:
            return f"{self._folder.score_file} cannot be read ({error!r})"
        if scores is None:
            return None
        again = f"python -m pipeline.score {self._folder.path}"
        if not scores.is_of(identity(self._folder)):
            return f"of rows before the last start; again: {again}"
        figures = ", ".join(f"{name} {value}" for name, value in scores.figures())
        missing = f", without {scores.missing_parts} parts" if scores.missing_parts else ""
        return f"{figures} ({scores.num_passed} of {scores.num_rows} rows passed{missing})"

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
