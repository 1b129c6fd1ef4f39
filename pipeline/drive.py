"""How is the engine kept fed, and where does what it gives back go?

    claim -> read -> prompt -> Request --engine--> Result -> text -> its open part -> full? written

The engine draws requests only while it has room, and so this worker draws parts: the next part's
rows enter while the last ones of the part before are finishing. A few parts are open at once; a
kill loses those.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pyarrow as pa

from engine.request import FinishReason, Request, Result
from pipeline.asked import Asked, Asker
from pipeline.config import JobConfig
from pipeline.folder import RunFolder
from pipeline.inputs import InputError
from pipeline.parts import Part
from pipeline.plan import Plan
from pipeline.progress import Tally
from pipeline.prompt import Prompter, RowError
from pipeline.read import PartReader, seed_of, seed_of_sample
from pipeline.stats import Meter, stats_table
from pipeline.write import Outcome, output_table

log = logging.getLogger("pipeline")


class Engine(Protocol):
    """What is needed of a DiffusionEngine."""

    def results(self, requests: Iterable[Request]) -> Iterator[Result]: ...


@dataclass(slots=True)
class OpenPart:
    part: Part
    carried: pa.Table
    row_ids: list[str]
    asked: list[Asked]
    """By row."""
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
        self._config = config
        self._plan = plan
        self._folder = folder
        self._engine = engine
        self._prompter = prompter
        self._meter = meter
        self._tally = tally
        self._writes = writes
        self._reader = PartReader(plan.files, plan.read_schema)
        self._asker = Asker(config.generation, plan.overrides)
        self._schema = plan.output_schema
        self._open: dict[int, OpenPart] = {}

    def run(self, parts: Iterable[Part]) -> None:
        """Bring every row of `parts` to its outcome, and the parts into data/."""
        for result in self._engine.results(self._requests(parts)):
            is_error = result.finish_reason is FinishReason.ERROR
            text = None if is_error else self._prompter.text(result.token_ids)
            self._take(Outcome(result, text))
        assert not self._open, f"the engine gave no result for rows of parts {list(self._open)}"
        if self._writes:
            self._tally.publish()

    def _requests(self, parts: Iterable[Part]) -> Iterator[Request]:
        for part in parts:
            with self._meter.clock("read_s"):
                open_part, prompts = self._start(part)
            place = 0
            for row, asked in enumerate(open_part.asked):
                with self._meter.clock("read_s"):
                    ids, fault = self._token_ids(prompts[row], asked)
                for sample in range(asked.num_samples):
                    request_id = (part.index, place)
                    seed = self._seed(open_part.row_ids[row], sample, asked)
                    place += 1
                    if fault is None:
                        yield Request(
                            request_id=request_id,
                            prompt_ids=ids,
                            max_new_tokens=asked.max_new_tokens,
                            temperature=asked.temperature,
                            seed=seed,
                        )
                    else:
                        self._take(Outcome(_failed(fault, request_id, seed), None))

    def _start(self, part: Part) -> tuple[OpenPart, list[Any]]:
        """Open a part; its prompts."""
        rows = self._reader.read(part)
        asked = self._asker.asked(rows)
        if sum(a.num_samples for a in asked) != part.num_outcomes:
            raise InputError(
                f"data.path={self._plan.files[part.file].path}: from row {part.first_row} on it "
                f"asks for other numbers of samples than planned, {part.num_outcomes} for "
                f"{part.num_rows} rows; it was changed after the plan was made: restore it"
            )
        open_part = self._open[part.index] = OpenPart(
            part=part,
            carried=rows.select(self._plan.carried),
            row_ids=self._reader.row_ids(part),
            asked=asked,
            outcomes=[None] * part.num_outcomes,
            num_left=part.num_outcomes,
        )
        log.info("part %d: %d rows", part.index, part.num_rows)
        return open_part, rows[self._plan.prompt_column].to_pylist()

    def _token_ids(self, prompt: Any, asked: Asked) -> tuple[list[int], str | None]:
        """A prompt's ids, or what is wrong with the row."""
        if asked.error is not None:
            return [], asked.error
        row = {self._plan.prompt_column: prompt}
        try:
            return self._prompter.token_ids(row, asked.max_new_tokens), None
        except RowError as error:
            return [], str(error)

    def _seed(self, row_id: str, sample: int, asked: Asked) -> int:
        if asked.seed is None:
            return seed_of(self._config.seed, row_id, sample)
        return seed_of_sample(asked.seed, sample)

    def _take(self, outcome: Outcome) -> None:
        part, place = cast(tuple[int, int], outcome.result.request_id)
        open_part = self._open[part]
        assert open_part.outcomes[place] is None, f"part {part} row {place}: two results"
        open_part.outcomes[place] = outcome
        open_part.num_left -= 1
        if self._writes:
            self._tally.count(outcome)
        if open_part.num_left:
            return
        del self._open[part]
        if self._writes:
            with self._meter.clock("write_s"):
                self._write(open_part)

    def _write(self, full: OpenPart) -> None:
        """The stats row first: once its file stands in data/, a part is done for good."""
        index = full.part.index
        outcomes = [outcome for outcome in full.outcomes if outcome is not None]
        num_samples = [asked.num_samples for asked in full.asked]
        table = output_table(self._schema, full.carried, full.row_ids, num_samples, outcomes)
        stats = self._meter.row(index, outcomes)
        self._folder.write_table(self._folder.stats_file(index), stats_table(stats))
        self._folder.write_table(self._folder.data_file(index), table)
        log.info("part %d: written, %d of its rows failed", index, stats["num_failed"])


def _failed(fault: str, request_id: tuple[int, int], seed: int) -> Result:
    return Result(
        request_id=request_id,
        finish_reason=FinishReason.ERROR,
        error=fault,
        num_prompt_tokens=0,
        seed=seed,
    )
