"""Feeds the engine with the requests of one part after another, and writes the finished parts.

    claim a part -> prepare it -> Requests -> engine -> Results -> text -> open part -> file

The engine pulls requests while it has room, and the worker claims the next part when the last
request of a part enters the engine. The next rows therefore join while the last rows of the part
before are still running, and the engine never runs empty between parts. Several parts can be open
(not all of their rows have an outcome) at the same time, and a kill loses only those.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pyarrow as pa

from engine.request import FinishReason, Request, Result
from pipeline.config.job import JobConfig
from pipeline.generate.prefetch import Prefetcher, Prepared, Preparer
from pipeline.input.parts import Part
from pipeline.plan.retry import failed_places, replace_rows
from pipeline.plan.run_json import Plan
from pipeline.prompt.kept import PromptKeeper
from pipeline.prompt.prompter import Prompter
from pipeline.run_folder.files import Place, exists, open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import Outcome, output_table
from pipeline.stats.meter import Meter, stats_table
from pipeline.stats.progress import Tally
from pipeline.stats.timeline import Timeline
from pipeline.workers.session import Session, retried_key
from pipeline.workers.shutdown import Shutdown

log = logging.getLogger("pipeline")


class Engine(Protocol):
    """What the driver needs of a DiffusionEngine; a StandIn provides it too."""

    def results(self, requests: Iterable[Request]) -> Iterator[Result]: ...


@dataclass(slots=True)
class OpenPart:
    """A part that is in the engine: some of its rows have no outcome yet."""

    prepared: Prepared
    outcomes: list[Outcome | None]
    """One for each output row, in order. None: not finished yet, or, if only failed rows are run
    again, a row that keeps its old outcome."""
    num_left: int
    """Output rows that are still to finish."""
    retried: list[int] | None = None
    """For a part whose file exists: the places of its failed rows, which are run again."""


class Driver:
    def __init__(
        self,
        config: JobConfig,
        plan: Plan,
        folder: RunFolder,
        *,
        engine: Engine,
        prompter: Prompter,
        meter: Meter,
        tally: Tally,
        session: Session,
        shutdown: Shutdown,
        writes: bool = True,
    ) -> None:
        """`writes` is false on every rank of a tensor-parallel group except the first: they compute
        the same rows, but only the first counts and writes them."""
        self._retry_failed = config.retry_failed
        self._folder = folder
        self._engine = engine
        self._prompter = prompter
        self._preparer = Preparer(config, plan, prompter)
        self._meter = meter
        self._tally = tally
        self._timeline = Timeline(meter, folder)
        self._session = session
        self._shutdown = shutdown
        self._writes = writes
        self._schema = plan.output_schema
        kept = plan.kept_schema
        self._keeper = None if kept is None else PromptKeeper(kept, config.prompt.system)
        self._open: dict[int, OpenPart] = {}

    def run(self, parts: Iterable[Part]) -> None:
        """Run all rows of `parts` and write each part to data/.

        After a shutdown request no more requests enter the engine: those already in it finish, and
        the parts that become complete are written.
        """
        prefetcher = Prefetcher(iter(parts), self._preparer.prepare)
        if self._writes:
            self._timeline.add_point()
        try:
            for result in self._engine.results(self._requests(prefetcher)):
                is_error = result.finish_reason is FinishReason.ERROR
                text = None if is_error else self._prompter.text(result.token_ids)
                self._take(Outcome(result, text and text[: result.text_length]))
        finally:
            prefetcher.close()
            if self._writes:
                self._timeline.finish()
        is_complete = not self._open or self._shutdown.is_requested()
        assert is_complete, f"the engine gave no result for rows of parts {list(self._open)}"
        if self._writes:
            self._tally.publish()

    def _requests(self, prefetcher: Prefetcher) -> Iterator[Request]:
        while (
            not self._shutdown.is_requested() and (prepared := self._next(prefetcher)) is not None
        ):
            failed, requests = self._open_part(prepared)
            for result in failed:
                self._take(Outcome(result, None))
            for index, request in enumerate(requests):
                if self._shutdown.is_requested():
                    return
                if index == len(requests) - 1:  # prepare the next part while this one runs
                    with self._meter.clock("claim_s"):
                        prefetcher.draw()
                yield request

    def _open_part(self, prepared: Prepared) -> tuple[list[Result], list[Request]]:
        """Register the part as open. Returns its error results and its requests: all of them, or,
        if its file exists and failed rows are run again, only those of these rows."""
        part, file = prepared.part, self._folder.data_file(prepared.part.index)
        failed, requests, retried = prepared.failed, prepared.requests, None
        if self._retry_failed and exists(file):
            retried = failed_places(file)
            places = set(retried)
            failed = [result for result in failed if place_of(result) in places]
            requests = [request for request in requests if place_of(request) in places]
        num_left = part.num_outcomes if retried is None else len(retried)
        log.info("part %d: %d output rows", part.index, num_left)
        if num_left:
            outcomes: list[Outcome | None] = [None] * part.num_outcomes
            self._open[part.index] = OpenPart(prepared, outcomes, num_left, retried)
        return failed, requests

    def _next(self, prefetcher: Prefetcher) -> Prepared | None:
        """The next part, ready for the engine; None after the last."""
        with self._meter.clock("claim_s"):
            prefetcher.draw()
        with self._meter.clock("read_s"):
            return prefetcher.take()

    def _take(self, outcome: Outcome) -> None:
        """Record the outcome in its open part, and write the part if it was the last one."""
        part, place = cast(tuple[int, int], outcome.result.request_id)
        open_part = self._open[part]
        assert open_part.outcomes[place] is None, f"part {part} row {place}: two results"
        open_part.outcomes[place] = outcome
        open_part.num_left -= 1
        if not open_part.num_left:
            del self._open[part]
        if not self._writes:
            return
        self._meter.count(outcome)
        self._tally.count(outcome)
        self._timeline.add_point_if_due()
        if not open_part.num_left:
            with self._meter.clock("write_s"):
                self._write(open_part)

    def _write(self, full: OpenPart) -> None:
        """Write the part's stats, then its data: as soon as its file is in data/ the part counts as
        done, and nobody would add missing stats."""
        prepared, index = full.prepared, full.prepared.part.index
        done = {
            place: outcome for place, outcome in enumerate(full.outcomes) if outcome is not None
        }
        table = output_table(
            self._schema,
            prepared.carried,
            prepared.row_ids,
            prepared.num_samples,
            done,
            self._kept(prepared, done),
        )
        row = self._meter.row(index, list(done.values()))
        stats = stats_table(row)
        if full.retried is not None:
            table = replace_rows(_read(self._folder.data_file(index)), table, full.retried)
            before = self._folder.stats_file(index)
            if exists(before):  # an earlier version's may lack columns
                stats = pa.concat_tables([_read(before), stats], promote_options="default")
        self._timeline.write_before_part()
        self._folder.write_table(self._folder.stats_file(index), stats)
        self._folder.write_table(self._folder.data_file(index), table)
        if self._retry_failed:
            self._session.add(retried_key(index), 1)
        log.info("part %d: written, %d of its rows failed", index, row["num_failed"])

    def _kept(self, prepared: Prepared, done: dict[int, Outcome]) -> dict[str, list[Any]]:
        """The columns of prompts for the output rows that are done; none without prompt.keep."""
        if self._keeper is None:
            return {}
        rows = prepared.rows
        prompts = [prepared.prompts[rows[place]] for place in done]
        return self._keeper.columns(prompts, [outcome.text for outcome in done.values()])


def _read(file: Place) -> pa.Table:
    return open_parquet(file).read()


def place_of(of: Request | Result) -> int:
    """The place of its output row: 0 is the part's first output row."""
    return cast(tuple[int, int], of.request_id)[1]
