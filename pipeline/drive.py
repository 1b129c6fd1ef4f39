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

from engine.request import FinishReason, Request, Result
from pipeline.config import JobConfig
from pipeline.folder import RunFolder
from pipeline.parts import Part
from pipeline.plan import Plan
from pipeline.prepare import AHEAD, Ahead, Prepared, Preparer
from pipeline.progress import Tally
from pipeline.prompt import Prompter
from pipeline.stats import Meter, stats_table
from pipeline.timeline import Timeline
from pipeline.write import Outcome, output_table

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
        writes: bool = True,
    ) -> None:
        """`writes` is false on those ranks of a group that compute the same rows beside its first,
        which alone counts them and writes them down."""
        self._folder = folder
        self._engine = engine
        self._prompter = prompter
        self._preparer = Preparer(config, plan, prompter)
        self._meter = meter
        self._tally = tally
        self._timeline = Timeline(meter, folder)
        self._writes = writes
        self._schema = plan.output_schema
        self._open: dict[int, OpenPart] = {}

    def run(self, parts: Iterable[Part]) -> None:
        """Bring every row of `parts` to its outcome, and the parts into data/."""
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
        assert not self._open, f"the engine gave no result for rows of parts {list(self._open)}"
        if self._writes:
            self._tally.publish()

    def _requests(self, ahead: Ahead) -> Iterator[Request]:
        while (prepared := self._next(ahead)) is not None:
            part, requests = prepared.part, prepared.requests
            log.info("part %d: %d rows", part.index, part.num_rows)
            self._open[part.index] = OpenPart(
                prepared, [None] * part.num_outcomes, part.num_outcomes
            )
            for result in prepared.failed:
                self._take(Outcome(result, None))
            for place, request in enumerate(requests):
                if place >= AHEAD * len(requests):
                    with self._meter.clock("claim_s"):
                        ahead.draw()
                yield request

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
        """The stats row first: once its file stands in data/, a part is done for good."""
        its, index = full.prepared, full.prepared.part.index
        outcomes = [outcome for outcome in full.outcomes if outcome is not None]
        table = output_table(self._schema, its.carried, its.row_ids, its.num_samples, outcomes)
        stats = self._meter.row(index, outcomes)
        self._timeline.part()
        self._folder.write_table(self._folder.stats_file(index), stats_table(stats))
        self._folder.write_table(self._folder.data_file(index), table)
        log.info("part %d: written, %d of its rows failed", index, stats["num_failed"])
