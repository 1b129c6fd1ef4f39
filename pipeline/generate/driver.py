"""How is the engine kept fed, and where does what it gives back go?

    claim -> prepare -> Request --engine--> Result -> text -> its open part -> full? written

The engine draws requests only while it has room, and so this worker draws parts: the next part's
rows enter while the last ones of the part before are finishing. A few parts are open at once; a
kill loses those.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import pyarrow as pa

from engine.request import FinishReason, Request, Result
from pipeline.config.job import JobConfig
from pipeline.generate.prefetch import Ahead, Prepared, Preparer
from pipeline.input.parts import Part
from pipeline.plan.retry import failed_places, with_new
from pipeline.plan.run_json import Plan
from pipeline.prompt.prompter import Prompter
from pipeline.run_folder.files import Place, exists, open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import Outcome, output_table
from pipeline.stats.meter import Meter, stats_table
from pipeline.stats.progress import Tally
from pipeline.stats.timeline import Timeline
from pipeline.workers.session import Session, again_key
from pipeline.workers.shutdown import Shutdown

log = logging.getLogger("pipeline")


class Engine(Protocol):
    """What is needed of a DiffusionEngine."""

    def results(self, requests: Iterable[Request]) -> Iterator[Result]: ...


@dataclass(slots=True)
class OpenPart:
    prepared: Prepared
    outcomes: list[Outcome | None]
    """In output order; None while the engine has it."""
    num_left: int
    again: list[int] | None = None
    """The places that failed before, of a part that has a file."""


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
        """`writes` is false on those ranks of a group that compute the same rows beside its first,
        which alone counts them and writes them down."""
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
        self._open: dict[int, OpenPart] = {}

    def run(self, parts: Iterable[Part]) -> None:
        """Bring every row of `parts` to its outcome, and the parts into data/; if a shutdown is
        requested meanwhile, as many of them as are in the engine then."""
        ahead = Ahead(iter(parts), self._preparer.prepare)
        if self._writes:
            self._timeline.point()
        try:
            for result in self._engine.results(self._requests(ahead)):
                is_error = result.finish_reason is FinishReason.ERROR
                text = None if is_error else self._prompter.text(result.token_ids)
                self._take(Outcome(result, text))
        finally:
            ahead.close()
            if self._writes:
                self._timeline.end()
        is_whole = not self._open or self._shutdown.is_requested()
        assert is_whole, f"the engine gave no result for rows of parts {list(self._open)}"
        if self._writes:
            self._tally.publish()

    def _requests(self, ahead: Ahead) -> Iterator[Request]:
        while not self._shutdown.is_requested() and (prepared := self._next(ahead)) is not None:
            failed, requests = self._opened(prepared)
            for result in failed:
                self._take(Outcome(result, None))
            for place, request in enumerate(requests):
                if self._shutdown.is_requested():
                    return
                if place == len(requests) - 1:
                    with self._meter.clock("claim_s"):
                        ahead.draw()
                yield request

    def _opened(self, prepared: Prepared) -> tuple[list[Result], list[Request]]:
        """What is to be done of a part: all, or what failed before."""
        part, file = prepared.part, self._folder.data_file(prepared.part.index)
        failed, requests, again = prepared.failed, prepared.requests, None
        if self._retry_failed and exists(file):
            again = failed_places(file)
            places = set(again)
            failed = [result for result in failed if place_of(result) in places]
            requests = [request for request in requests if place_of(request) in places]
        num_left = part.num_outcomes if again is None else len(again)
        log.info("part %d: %d output rows", part.index, num_left)
        if num_left:
            outcomes: list[Outcome | None] = [None] * part.num_outcomes
            self._open[part.index] = OpenPart(prepared, outcomes, num_left, again)
        return failed, requests

    def _next(self, ahead: Ahead) -> Prepared | None:
        with self._meter.clock("claim_s"):
            ahead.draw()
        with self._meter.clock("read_s"):
            return ahead.take()

    def _take(self, outcome: Outcome) -> None:
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
        self._timeline.look()
        if not open_part.num_left:
            with self._meter.clock("write_s"):
                self._write(open_part)

    def _write(self, full: OpenPart) -> None:
        """The stats first: once its file stands in data/, a part is done for good."""
        its, index = full.prepared, full.prepared.part.index
        done = {
            place: outcome for place, outcome in enumerate(full.outcomes) if outcome is not None
        }
        table = output_table(self._schema, its.carried, its.row_ids, its.num_samples, done)
        row = self._meter.row(index, list(done.values()))
        stats = stats_table(row)
        if full.again is not None:
            table = with_new(_read(self._folder.data_file(index)), table, full.again)
            stats = pa.concat_tables([_read(self._folder.stats_file(index)), stats])
        self._timeline.part()
        self._folder.write_table(self._folder.stats_file(index), stats)
        self._folder.write_table(self._folder.data_file(index), table)
        if self._retry_failed:
            self._session.add(again_key(index), 1)
        log.info("part %d: written, %d of its rows failed", index, row["num_failed"])


def _read(file: Place) -> pa.Table:
    return open_parquet(file).read()


def place_of(of: Request | Result) -> int:
    """Among the output rows of its part."""
    return cast(tuple[int, int], of.request_id)[1]
