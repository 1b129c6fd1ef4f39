"""A part's rows, read, and their prompts as token ids: done ahead of the engine, in a thread.

    engine at work on     part 3 ........................ | part 4 ...
    this thread                                   reads 4 |

The next part is drawn when the last row of the one before goes into the engine, not sooner: what
one worker has drawn no other can take when rows run out.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.request import FinishReason, Request, Result
from pipeline.config.job import JobConfig
from pipeline.input.errors import InputError
from pipeline.input.parts import Part
from pipeline.input.reader import PartReader, seed_of, seed_of_sample
from pipeline.input.row_settings import RowSettings, SettingsReader
from pipeline.input.where import Where
from pipeline.plan.run_json import Plan
from pipeline.prompt.prompter import Prompter, RowError


@dataclass(frozen=True, slots=True)
class Prepared:
    part: Part
    carried: pa.Table
    row_ids: list[str]
    num_samples: list[int]
    """By row."""
    requests: list[Request]
    """The longest first, so that no long one is alone in the engine at the end. A request_id is
    (part, place among the output rows)."""
    failed: list[Result]
    """Rows that are no request."""


class Preparer:
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

    def prepare(self, part: Part) -> Prepared:
        """
        Raises:
            InputError: the file is no longer what the plan saw.
        """
        rows, row_ids = self._reader.read(part)
        settings = self._settings_reader.read(rows)
        if sum(a.num_samples for a in settings) != part.num_outcomes:
            raise InputError(
                f"data.path={self._plan.files[part.file].path}: from row {part.first_row} on it "
                f"asks for other numbers of samples than planned, {part.num_outcomes} for "
                f"{part.num_rows} rows; it was changed after the plan was made: restore it"
            )
        requests: list[Request] = []
        failed: list[Result] = []
        prompts = rows.select(self._plan.prompt_columns).to_pylist()
        place = 0
        for row, its in enumerate(settings):
            ids, fault = self._token_ids(prompts[row], its)
            for sample in range(its.num_samples):
                request_id, seed = (part.index, place), self._seed(row_ids[row], sample, its)
                place += 1
                if fault is not None:
                    failed.append(_failed(fault, request_id, seed))
                    continue
                requests.append(
                    Request(
                        request_id=request_id,
                        prompt_ids=ids,
                        max_new_tokens=its.max_new_tokens,
                        temperature=its.temperature,
                        seed=seed,
                    )
                )
        requests.sort(key=lambda r: -len(r.prompt_ids) - r.max_new_tokens)
        num_samples = [its.num_samples for its in settings]
        return Prepared(
            part, rows.select(self._plan.carried), row_ids, num_samples, requests, failed
        )

    def _token_ids(
        self, prompt: dict[str, Any], settings: RowSettings
    ) -> tuple[list[int], str | None]:
        """A prompt's ids, or what is wrong with the row."""
        if settings.error is not None:
            return [], settings.error
        try:
            return self._prompter.token_ids(prompt, settings.max_new_tokens), None
        except RowError as error:
            return [], str(error)

    def _seed(self, row_id: str, sample: int, settings: RowSettings) -> int:
        if settings.seed is None:
            return seed_of(self._config.seed, row_id, sample)
        return seed_of_sample(settings.seed, sample)


class Ahead:
    """The parts of an iterator, prepared. They are drawn in the caller's thread."""

    def __init__(self, parts: Iterator[Part], prepare: Callable[[Part], Prepared]) -> None:
        self._parts = parts
        self._prepare = prepare
        self._pool = ThreadPoolExecutor(1, "prepare")
        self._next: Future[Prepared] | None = None

    def draw(self) -> None:
        """Begin to prepare the next part, if that has not begun and there is one."""
        if self._next is None and (part := next(self._parts, None)) is not None:
            self._next = self._pool.submit(self._prepare, part)

    def take(self) -> Prepared | None:
        """The next part, once it is ready; None after the last."""
        self.draw()
        if self._next is None:
            return None
        prepared, self._next = self._next.result(), None
        return prepared

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _failed(fault: str, request_id: tuple[int, int], seed: int) -> Result:
    return Result(
        request_id=request_id,
        finish_reason=FinishReason.ERROR,
        error=fault,
        num_prompt_tokens=0,
        seed=seed,
    )
