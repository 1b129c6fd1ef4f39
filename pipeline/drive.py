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
from pipeline.config import JobConfig
from pipeline.folder import RunFolder
from pipeline.plan import Part, Plan
from pipeline.progress import Tally
from pipeline.prompt import Prompter, RowError
from pipeline.read import PartReader, seed_of
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
    ) -> None:
        self._config = config
        self._plan = plan
        self._folder = folder
        self._engine = engine
        self._prompter = prompter
        self._meter = meter
        self._tally = tally
        self._reader = PartReader(plan)
        self._schema = plan.output_schema
        self._open: dict[int, OpenPart] = {}

    def run(self, parts: Iterable[Part]) -> None:
        """Bring every row of `parts` to its outcome, and the parts into data/."""
        for result in self._engine.results(self._requests(parts)):
            is_error = result.finish_reason is FinishReason.ERROR
            text = None if is_error else self._prompter.text(result.token_ids)
            self._take(Outcome(result, text))
        assert not self._open, f"the engine gave no result for rows of parts {list(self._open)}"
        self._tally.publish()

    def _requests(self, parts: Iterable[Part]) -> Iterator[Request]:
        for part in parts:
            with self._meter.clock("read_s"):
                prompts = self._start(part)
            for row, prompt in enumerate(prompts):
                with self._meter.clock("read_s"):
                    ids, fault = self._token_ids(prompt)
                for sample in range(self._plan.num_samples):
                    asked = self._asked(self._open[part.index], row, sample)
                    if fault is None:
                        yield Request(
                            prompt_ids=ids,
                            max_new_tokens=self._config.generation.max_new_tokens,
                            temperature=self._config.generation.temperature,
                            **asked,
                        )
                    else:
                        self._take(Outcome(_failed(fault, asked), None))

    def _start(self, part: Part) -> list[Any]:
        """Open a part; its prompts."""
        rows = self._reader.read(part)
        num_outcomes = part.num_rows * self._plan.num_samples
        self._open[part.index] = OpenPart(
            part=part,
            carried=rows.select(self._plan.carried),
            row_ids=self._reader.row_ids(part),
            outcomes=[None] * num_outcomes,
            num_left=num_outcomes,
        )
        log.info("part %d: %d rows", part.index, part.num_rows)
        prompts: list[Any] = rows[self._plan.prompt_column].to_pylist()
        return prompts

    def _token_ids(self, prompt: Any) -> tuple[list[int], str | None]:
        """A prompt's ids, or what is wrong with the row."""
        try:
            return self._prompter.token_ids({self._plan.prompt_column: prompt}), None
        except RowError as error:
            return [], str(error)

    def _asked(self, open_part: OpenPart, row: int, sample: int) -> dict[str, Any]:
        """What tells one output row from all others: where it goes, and its seed."""
        place = row * self._plan.num_samples + sample
        return {
            "request_id": (open_part.part.index, place),
            "seed": seed_of(self._config.seed, open_part.row_ids[row], sample),
        }

    def _take(self, outcome: Outcome) -> None:
        part, place = cast(tuple[int, int], outcome.result.request_id)
        open_part = self._open[part]
        assert open_part.outcomes[place] is None, f"part {part} row {place}: two results"
        open_part.outcomes[place] = outcome
        open_part.num_left -= 1
        self._tally.count(outcome)
        if not open_part.num_left:
            del self._open[part]
            with self._meter.clock("write_s"):
                self._write(open_part)

    def _write(self, full: OpenPart) -> None:
        """The stats row first: once its file stands in data/, a part is done for good."""
        index = full.part.index
        outcomes = [outcome for outcome in full.outcomes if outcome is not None]
        table = output_table(self._schema, full.carried, full.row_ids, outcomes)
        stats = self._meter.row(index, outcomes)
        self._folder.write_table(self._folder.stats_file(index), stats_table(stats))
        self._folder.write_table(self._folder.data_file(index), table)
        log.info("part %d: written, %d of its rows failed", index, stats["num_failed"])


def _failed(fault: str, asked: dict[str, Any]) -> Result:
    return Result(finish_reason=FinishReason.ERROR, error=fault, num_prompt_tokens=0, **asked)
