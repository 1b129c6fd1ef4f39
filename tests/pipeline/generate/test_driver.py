"""The driver with a fake engine: rows enter while it has room, and come out in input order."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.request import FinishReason, Request, Result
from engine.stats import EngineStats
from pipeline.config.job import JobConfig
from pipeline.generate.driver import Driver
from pipeline.input.reader import seed_of, seed_of_sample
from pipeline.plan.build import make_plan
from pipeline.plan.claims import Claims
from pipeline.plan.run_json import Plan
from pipeline.prompt.prompter import Prompter
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import Meter
from pipeline.stats.progress import Tally, read_counters
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session
from pipeline.workers.shutdown import Shutdown
from tests.checkpoints import job, output_rows, prompts, write_parquet

ABOUT = {"rank": 0, "host": "h", "device": "cpu", "git_revision": None, "versions": {}}


class StandIn:
    """A fake engine that holds `room` requests and finishes the newest first, so that results come
    out of order. A result's tokens are its request's seed % 200 and prompt length.
    """

    def __init__(self, room: int, breaks_after: int | None = None) -> None:
        self.room = room
        self.breaks_after = breaks_after
        self.taken: list[Request] = []
        self.num_held_at_draw: list[int] = []

    def results(self, requests: Iterable[Request]) -> Iterator[Result]:
        source, held = iter(requests), list[Request]()
        while True:
            while len(held) < self.room:
                self.num_held_at_draw.append(len(held))
                request = next(source, None)
                if request is None:
                    break
                held.append(request)
                self.taken.append(request)
            if not held:
                return
            if self.breaks_after is not None and len(self.taken) > self.breaks_after:
                raise RuntimeError("the device is gone")
            request = held.pop()
            yield Result(
                request_id=request.request_id,
                finish_reason=FinishReason.LENGTH,
                token_ids=[request.seed % 200, len(request.prompt_ids)],
                num_prompt_tokens=len(request.prompt_ids),
                seed=request.seed,
            )


class Job:
    """A planned job that runs in this process as its only worker."""

    def __init__(self, checkpoint: Path, data: Path, output: Path, **changes: Any) -> None:
        self.config: JobConfig = job(checkpoint, data, output, **changes)
        self.plan: Plan = make_plan(self.config, checkpoint)
        self.folder = RunFolder(output)
        self.folder.make()
        self.session = Session(LocalStore(), 0, Worker())

    def run(self, engine: StandIn, writes: bool = True) -> list[dict[str, Any]]:
        driver = Driver(
            self.config,
            self.plan,
            self.folder,
            engine=engine,
            prompter=Prompter(Path(self.config.model.path), self.config.prompt, 100),
            meter=Meter(EngineStats(), page_bytes=1, about=ABOUT),
            tally=Tally(self.session, self.plan.num_outcomes, 1.0),
            writes=writes,
            session=self.session,
            shutdown=Shutdown(0.0),
        )
        driver.run(Claims(self.session, self.plan, self.folder))
        return output_rows(self.folder.path)


def test_results_in_any_order_come_out_in_input_order(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(30))
    a_job = Job(checkpoint, data, tmp_path / "run", seed=9)
    engine = StandIn(room=7)
    rows = a_job.run(engine)
    assert [row["row_id"] for row in rows] == [f"in:{i}" for i in range(30)]
    for row, prompt in zip(rows, prompts(30), strict=True):
        assert {name: row[name] for name in prompt} == prompt
        assert row["seed"] == seed_of(9, row["row_id"], 0)
        assert row["token_ids"] == [row["seed"] % 200, row["num_prompt_tokens"]]
    assert read_counters(a_job.session).rows == 30


def test_the_engine_is_never_drained_between_parts(checkpoint: Path, tmp_path: Path) -> None:
    """Parts have 4 rows and the engine holds 7, so rows of several parts are in it at once."""
    data = write_parquet(tmp_path / "in.parquet", prompts(40))
    engine = StandIn(room=7)
    Job(checkpoint, data, tmp_path / "run").run(engine)
    first_fill = list(range(7))
    assert engine.num_held_at_draw[:7] == first_fill
    last_draws = engine.num_held_at_draw[7:41]
    assert set(last_draws) == {6}, "each draw replaces the one row that has finished"


def test_a_bad_row_gets_its_error_without_the_engine(checkpoint: Path, tmp_path: Path) -> None:
    rows = prompts(10)
    rows[2]["prompt"] = None
    rows[5]["prompt"] = " \n"
    rows[9]["prompt"] = "x" * 200
    data = write_parquet(tmp_path / "in.parquet", rows)
    engine = StandIn(room=3)
    out = Job(checkpoint, data, tmp_path / "run").run(engine)
    failed = {row["row_id"]: row for row in out if row["finish_reason"] == "error"}
    assert list(failed) == ["in:2", "in:5", "in:9"]
    for row_id, reason in {"in:2": "null", "in:5": "white space", "in:9": "shorten"}.items():
        assert reason in failed[row_id]["error"]
        assert (failed[row_id]["text"], failed[row_id]["token_ids"]) == (None, [])
    assert len(engine.taken) == 7
    assert len(out) == 10


def test_a_part_with_only_bad_rows_is_written_too(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{**row, "prompt": ""} for row in prompts(8)] + prompts(1)
    data = write_parquet(tmp_path / "in.parquet", rows)
    out = Job(checkpoint, data, tmp_path / "run").run(StandIn(room=3))
    assert [row["finish_reason"] for row in out] == ["error"] * 8 + ["length"]


def test_each_sample_of_a_row_has_its_own_seed(checkpoint: Path, tmp_path: Path) -> None:
    rows = prompts(6)
    rows[1]["prompt"] = None
    data = write_parquet(tmp_path / "in.parquet", rows)
    changes = {"generation__num_samples": 3, "generation__temperature": 0.5}
    out = Job(checkpoint, data, tmp_path / "run", **changes).run(StandIn(room=5))
    places = [(row["row_id"], row["sample_index"]) for row in out]
    assert places == [(f"in:{i}", sample) for i in range(6) for sample in range(3)]
    assert len({row["seed"] for row in out}) == 18
    assert sum(row["finish_reason"] == "error" for row in out) == 3


def test_only_parts_without_a_file_are_run(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(12))
    a_job = Job(checkpoint, data, tmp_path / "run")
    a_job.run(StandIn(room=2))
    before = a_job.folder.data_file(1).stat().st_mtime_ns
    a_job.folder.data_file(2).unlink()
    again = Job(checkpoint, data, tmp_path / "run")
    engine = StandIn(room=2)
    assert len(again.run(engine)) == 12
    assert len(engine.taken) == 4
    assert again.folder.data_file(1).stat().st_mtime_ns == before


def test_a_broken_engine_stops_the_worker_and_finished_parts_are_kept(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(40))
    a_job = Job(checkpoint, data, tmp_path / "run")
    with pytest.raises(RuntimeError, match="device is gone"):
        a_job.run(StandIn(room=1, breaks_after=10))
    assert a_job.folder.parts_done() == {0, 1}


def test_the_other_ranks_of_a_group_run_the_same_rows_but_write_and_count_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = prompts(10)
    rows[2]["prompt"] = None
    data = write_parquet(tmp_path / "in.parquet", rows)
    first, other = StandIn(room=3), StandIn(room=3)
    Job(checkpoint, data, tmp_path / "run").run(first)
    beside = Job(checkpoint, data, tmp_path / "beside")
    assert beside.run(other, writes=False) == []
    assert other.taken == first.taken
    assert list(beside.folder.stats.iterdir()) == []
    assert read_counters(beside.session).rows == 0


def rows_with_settings() -> list[dict[str, Any]]:
    """10 rows. The settings of rows 4 to 6 are invalid; row 7 does not fit into the context."""
    rows = prompts(10)
    rows[0] |= {"num_samples": 3, "temperature": 0.7}
    rows[1] |= {"max_new_tokens": 3}
    rows[2] |= {"seed": 11}
    rows[3] |= {"seed": 11, "num_samples": 2, "temperature": 0.5}
    rows[4] |= {"temperature": -1.0, "num_samples": 4}
    rows[5] |= {"num_samples": 0}
    rows[6] |= {"num_samples": 2}
    rows[7] |= {"max_new_tokens": 95, "num_samples": 2, "temperature": 1.0}
    return rows


NUM_OUTCOMES = [3, 1, 1, 2, 1, 1, 1, 2, 1, 1]
"""Output rows of each row of rows_with_settings."""


def test_rows_override_the_jobs_settings(checkpoint: Path, tmp_path: Path) -> None:
    """The model's context is 100 tokens here; the job's own settings are 8 tokens, greedy."""
    data = write_parquet(tmp_path / "in.parquet", rows_with_settings())
    a_job, engine = Job(checkpoint, data, tmp_path / "run", seed=4), StandIn(room=5)
    assert [part.num_outcomes for part in a_job.plan.parts] == [7, 5, 2]
    out = a_job.run(engine)
    places = [(row["row_id"], row["sample_index"]) for row in out]
    assert places == [
        (f"in:{i}", sample) for i, num in enumerate(NUM_OUTCOMES) for sample in range(num)
    ]
    assert read_counters(a_job.session).rows == 14

    errors = {row["row_id"]: row["error"] for row in out if row["error"]}
    assert list(errors) == ["in:4", "in:5", "in:6", "in:7"]
    assert errors["in:4"].startswith("temperature=-1.0: ")
    assert errors["in:5"].startswith("num_samples=0: ")
    assert "with generation.temperature=0.0" in errors["in:6"]
    assert "fit with max_new_tokens=95 into the model's context of 100" in errors["in:7"]

    requests = {request.seed: request for request in engine.taken}
    asked = {
        place: requests[row["seed"]]
        for place, row in zip(places, out, strict=True)
        if row["error"] is None and place[0] not in ("in:2", "in:3")
    }
    assert {asked["in:0", i].temperature for i in range(3)} == {0.7}
    assert [asked[f"in:{i}", 0].max_new_tokens for i in (1, 8)] == [3, 8]
    assert asked["in:8", 0].temperature == 0.0


def test_a_rows_own_seed_is_used_and_its_samples_differ(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", rows_with_settings())
    out = Job(checkpoint, data, tmp_path / "run", seed=4).run(StandIn(room=5))
    seeds = [[row["seed"] for row in out if row["row_id"] == f"in:{i}"] for i in range(10)]
    assert seeds[0] == [seed_of(4, "in:0", i) for i in range(3)]
    assert seeds[2] == [11]
    assert seeds[3] == [11, seed_of_sample(11, 1)]
    assert seeds[8] == [seed_of(4, "in:8", 0)]


def test_a_row_with_more_samples_than_planned_stops_the_job(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = rows_with_settings()
    data = write_parquet(tmp_path / "in.parquet", rows)
    a_job = Job(checkpoint, data, tmp_path / "run")
    rows[1] |= {"num_samples": 2, "temperature": 0.5}
    write_parquet(data, rows)
    with pytest.raises(ValueError, match=r"in\.parquet: the 4 rows .* 8 output rows, but 7 "):
        a_job.run(StandIn(room=5))
