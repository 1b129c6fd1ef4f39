"""Reads the next part and tokenizes its prompts in a thread, while the engine runs the current one.

    engine    runs part 3 ................................ | runs part 4 ...
    thread                              | prepares part 4  |
                                        the last request of part 3 enters the engine

The next part is claimed at that moment and not sooner. No other worker can take a claimed part, and
near the end of the job the others may have nothing else to do.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.request import FinishReason, Request, Result
from pipeline.config.job import JobConfig
from pipeline.generate.cells import RowErrors, cells_of, log_replaced
from pipeline.input.errors import InputError
from pipeline.input.parts import Part
from pipeline.input.reader import PartReader, seed_of, seed_of_sample
from pipeline.input.row_settings import RowSettings, SettingsReader
from pipeline.input.utf8 import with_valid_utf8
from pipeline.input.where import Where
from pipeline.plan.run_json import Plan
from pipeline.prompt.prompter import Prompt, Prompter


@dataclass(frozen=True, slots=True)
class Prepared:
    """A part that is ready for the engine, with the columns that its output file needs."""

    part: Part
    carried: pa.Table
    """The input columns that go to the output, one row for each input row."""
    row_ids: list[str]
    """One for each input row."""
    num_samples: list[int]
    """Output rows of each input row."""
    requests: list[Request]
    """The longest canvas first, so that no long request is left alone in the engine at the end. A
    request_id is (part index, place), where place 0 is the part's first output row."""
    failed: list[Result]
    """Error results of the output rows whose settings or prompt cannot be used."""
    prompts: list[Prompt | None]
    """One for each input row if the output keeps them (prompt.keep), otherwise none at all."""

    @property
    def rows(self) -> list[int]:
        """The input row of each output row."""
        return [row for row, count in enumerate(self.num_samples) for _ in range(count)]


class Preparer:
    """Turns a part into requests: reads its rows, their settings and their prompts."""

    def __init__(self, config: JobConfig, plan: Plan, prompter: Prompter) -> None:
        self._config = config
        self._plan = plan
        self._prompter = prompter
        where, schema = config.data.where, plan.read_schema
        self._reader = PartReader(
            plan.files,
            schema,
            None if where is None else Where(where, schema),
            config.data.id_column,
        )
        self._settings_reader = SettingsReader(config.generation, plan.overrides)
        self._errors = RowErrors()

    def prepare(self, part: Part) -> Prepared:
        """Read the part's rows and make one request or one error result for each output row.
        Whatever is wrong with a row is that row's error.

        Raises:
            InputError: the input file has changed since the plan was made.
        """
        rows, row_ids, numbers = self._reader.read(part)
        path = self._plan.files[part.file].path
        settings = self._settings_reader.read(rows)
        num_samples = [row.num_samples for row in settings]
        if sum(num_samples) != part.num_outcomes:
            raise InputError(
                f"data.path={path}: the {part.num_rows} rows of part {part.index}, from row "
                f"{part.first_row} on, ask for {sum(num_samples)} output rows, but "
                f"{part.num_outcomes} were planned; the file was changed after the plan was made: "
                "restore it"
            )
        carried, changed = with_valid_utf8(self._plan.carried_of(rows))
        log_replaced(changed, numbers, path)
        prepared = Prepared(part, carried, row_ids, num_samples, [], [], [])
        for row, cells in enumerate(cells_of(rows, self._plan.prompt_columns)):
            prompt, reason = self._prompt(cells, settings[row], f"row {numbers[row]} of {path}")
            if self._plan.kept_schema is not None:
                prepared.prompts.append(prompt)
            self._add(prepared, row_ids[row], settings[row], prompt, reason)
        prepared.requests.sort(key=lambda r: -len(r.prompt_ids) - r.max_new_tokens)
        return prepared

    def _add(
        self,
        to: Prepared,
        row_id: str,
        settings: RowSettings,
        prompt: Prompt | None,
        reason: str,
    ) -> None:
        """Add a request for each sample of the next row; or, if it has no prompt, an error result
        with the reason."""
        first = len(to.requests) + len(to.failed)
        for sample in range(settings.num_samples):
            request_id = (to.part.index, first + sample)
            seed = self._seed(row_id, sample, settings)
            if prompt is None:
                to.failed.append(_error_result(reason, request_id, seed))
                continue
            to.requests.append(
                Request(
                    request_id=request_id,
                    prompt_ids=prompt.ids,
                    max_new_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    confidence=settings.confidence,
                    guidance=settings.guidance,
                    stop=settings.stop,
                    seed=seed,
                )
            )

    def _prompt(
        self, cells: dict[str, Any], settings: RowSettings, place: str
    ) -> tuple[Prompt | None, str]:
        """The row's prompt; or None, and the reason why the row cannot be used."""
        if settings.error is not None:
            return None, settings.error
        return self._errors.of(
            cells, place, lambda its: self._prompter.prompt(its, settings.max_new_tokens)
        )

    def _seed(self, row_id: str, sample: int, settings: RowSettings) -> int:
        """From the row's seed if it has one, else from the run's seed and the row id."""
        if settings.seed is None:
            return seed_of(self._config.seed, row_id, sample)
        return seed_of_sample(settings.seed, sample)


class Prefetcher:
    """Prepares the next part of an iterator in a thread.

    The iterator itself advances in the caller's thread, since claiming a part can take an exchange
    between the ranks of a group, and the engine in that thread makes such exchanges too.
    """

    def __init__(self, parts: Iterator[Part], prepare: Callable[[Part], Prepared]) -> None:
        self._parts = parts
        self._prepare = prepare
        self._pool = ThreadPoolExecutor(1, "prepare")
        self._next: Future[Prepared] | None = None

    def draw(self) -> None:
        """Claim the next part and start to prepare it, unless one is already claimed and not yet
        taken, or none is left."""
        if self._next is None and (part := next(self._parts, None)) is not None:
            self._next = self._pool.submit(self._prepare, part)

    def take(self) -> Prepared | None:
        """The next part, once it is prepared; None after the last."""
        self.draw()
        if self._next is None:
            return None
        prepared, self._next = self._next.result(), None
        return prepared

    def close(self) -> None:
        """Drop what the thread has not started, and wait until it is done."""
        self._pool.shutdown(cancel_futures=True)


def _error_result(reason: str, request_id: tuple[int, int], seed: int) -> Result:
    return Result(
        request_id=request_id,
        finish_reason=FinishReason.ERROR,
        error=reason,
        num_prompt_tokens=0,
        seed=seed,
    )
