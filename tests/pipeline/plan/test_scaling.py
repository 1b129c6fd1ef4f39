"""64 workers of different speed finish at nearly the same time.

Time is simulated; claims, reading, prompts and writing are the pipeline's own.
"""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import pytest

from engine.request import FinishReason, Request, Result
from engine.stats import EngineStats
from pipeline.generate.driver import Driver
from pipeline.input.parts import Part
from pipeline.plan.build import make_plan
from pipeline.plan.claims import Claims
from pipeline.prompt.prompter import Prompter
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import Meter
from pipeline.stats.progress import Tally
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session
from pipeline.workers.shutdown import Shutdown
from tests.checkpoints import job, output_rows, prompts, write_parquet
from tests.pipeline.plan.virtual_clock import VirtualClock, on_threads

NUM_WORKERS = 64
PART_ROWS = 4


class SlowEngine:
    """Runs one request at a time, for as long as the worker's speed and the prompt's length say."""

    def __init__(self, clock: VirtualClock, number: int, seconds: float) -> None:
        self._clock = clock
        self._number = number
        self._seconds = seconds
        self._drawn: dict[int, float] = {}
        self.longest_part_s = 0.0
        """The longest time from drawing a part to finishing its last row."""

    def timed(self, parts: Iterable[Part]) -> Iterator[Part]:
        for part in parts:
            self._drawn[part.index] = self._clock.now
            yield part

    def results(self, requests: Iterable[Request]) -> Iterator[Result]:
        for request in requests:
            self._clock.sleep(self._number, self._seconds * (1 + len(request.prompt_ids) / 20))
            part, _ = cast(tuple[int, int], request.request_id)
            self.longest_part_s = max(self.longest_part_s, self._clock.now - self._drawn[part])
            yield Result(
                request_id=request.request_id,
                finish_reason=FinishReason.LENGTH,
                num_prompt_tokens=len(request.prompt_ids),
                seed=request.seed,
            )


@pytest.mark.parametrize("num_rows", [64 * 4 * 6, 1700])
def test_the_last_worker_ends_at_most_one_part_later_than_the_first(
    checkpoint: Path, tmp_path: Path, num_rows: int
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(num_rows), row_group_size=100)
    config = job(checkpoint, data, tmp_path / "run", data__part_rows=PART_ROWS, prompt__chat=False)
    plan, folder, store = make_plan(config, checkpoint), RunFolder(tmp_path / "run"), LocalStore()
    folder.make()
    clock, draw = VirtualClock(NUM_WORKERS), random.Random(1)
    engines = [SlowEngine(clock, i, draw.uniform(1.0, 5.0)) for i in range(NUM_WORKERS)]
    Session(store, 0, Worker())  # rank 0 starts
    prompter, ended = Prompter(checkpoint, config.prompt, 256), [0.0] * NUM_WORKERS

    def work(number: int) -> None:
        session = Session(store, 0, Worker(rank=number, world=NUM_WORKERS))
        about = {"rank": number, "host": "h", "device": "d", "git_revision": None, "versions": {}}
        driver = Driver(
            config,
            plan,
            folder,
            engine=engines[number],
            prompter=prompter,
            meter=Meter(EngineStats(), 0, about),
            tally=Tally(session, plan.num_outcomes, 1.0),
            session=session,
            shutdown=Shutdown(0.0),
        )
        try:
            driver.run(engines[number].timed(Claims(session, plan, folder)))
        finally:
            ended[number] = clock.now
            clock.end()

    on_threads(work, NUM_WORKERS)
    assert len(output_rows(folder.path)) == num_rows
    first, last, part_s = min(ended), max(ended), max(e.longest_part_s for e in engines)
    print(
        f"{NUM_WORKERS} workers, the slowest up to 5 times slower than the fastest, "
        f"{len(plan.parts)} parts: the first worker is done after {first:.0f} s, the last "
        f"{last - first:.1f} s later; the slowest needs up to {part_s:.1f} s for a part"
    )
    assert last - first <= part_s
