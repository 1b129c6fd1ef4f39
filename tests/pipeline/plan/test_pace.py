"""data.part_minutes: the first parts are timed, then the others are joined, once for the run."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.input.parts import Part
from pipeline.plan import pace
from pipeline.plan.build import make_plan, pin
from pipeline.plan.claims import FINISHED, PACE, TURN, Claims
from pipeline.plan.heartbeat import Watch
from pipeline.plan.run_json import load
from pipeline.stats.meter import STATS_SCHEMA, stats_table
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session
from tests.checkpoints import job, prompts, write_parquet
from tests.engine.thread_ranks import ThreadRank, on_ranks
from tests.pipeline.generate.test_driver import Job
from tests.pipeline.status.command import Status
from tests.pipeline.status.conftest import status

__all__ = ["status"]
NUM_ROWS, NUM_FIRST = 40, 4
WHEN = {"rank": 0, "finished_at": datetime(2026, 3, 1, tzinfo=UTC)}


@pytest.fixture
def a_job(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A planned job with 20 parts of 2 rows, 4 of which are timed."""
    monkeypatch.setattr(pace, "NUM_FIRST", NUM_FIRST)
    monkeypatch.setattr(pace, "TURNOVERS", 0)
    data = write_parquet(tmp_path / "in.parquet", prompts(NUM_ROWS))
    changes = {"data__part_rows": 2, "data__part_minutes": 0.5}
    a_job = Job(checkpoint, data, tmp_path / "run", **changes)
    pin(a_job.plan, a_job.folder)
    return a_job


def write(a_job: Job, part: Part, seconds: float, loading_s: float = 0.0) -> None:
    """Write the part's stats and an empty file, as if its worker had taken `seconds` for it."""
    row = dict.fromkeys(("num_ok", "num_failed"), 0) | {
        **{"part": part.index, "num_ok": part.num_outcomes, "rank": 0},
        **{"total_s": seconds + loading_s, "start_s": loading_s / 4, "plan_s": loading_s / 4},
        **{"load_s": loading_s / 2, "finished_at": datetime.now(UTC)},
    }
    a_job.folder.write_table(a_job.folder.stats_file(part.index), stats_table(row))
    a_job.folder.data_file(part.index).touch()


def decided(a_job: Job) -> int:
    return pace.decide(a_job.plan, a_job.folder, 0.5, Watch(a_job.session))


def session(store: LocalStore, rank: int) -> Session:
    return Session(store, 0, Worker(rank=rank, world=2))


def claims(a_job: Job, store: LocalStore, rank: int) -> Claims:
    return Claims(session(store, rank), a_job.plan, a_job.folder, part_minutes=0.5)


def covered(parts: list[Part]) -> list[int]:
    """The input rows in these parts, in the order of the parts' indices."""
    by_index = sorted(parts, key=lambda part: part.index)
    return [row for p in by_index for row in range(p.first_row, p.first_row + p.num_read)]


@pytest.mark.parametrize(
    ("seconds", "num_joined"),
    [(60.0, 1), (20.0, 2), (10.0, 3), (2.0, 15), (0.0001, 300_000), (1000.0, 1)],
)
def test_a_part_has_the_rows_that_a_worker_does_in_part_minutes(
    a_job: Job, seconds: float, num_joined: int
) -> None:
    """A part of 2 rows takes `seconds`, loading not included; data.part_minutes is 0.5."""
    write(a_job, a_job.plan.parts[0], seconds, loading_s=100.0)
    write(a_job, a_job.plan.parts[3], seconds)
    assert decided(a_job) == num_joined
    said = json.loads(a_job.folder.pace_file.read_text())
    assert said["rows_per_s"] == pytest.approx(2 / seconds)
    assert load(a_job.folder) == a_job.plan.joined(num_joined)


def test_workers_wait_for_the_pace_and_draw_all_rows_once(a_job: Job) -> None:
    store, drawn = LocalStore(), list[Part]()

    def work(own: Claims) -> None:
        for parts in own.rounds():
            for part in parts:
                drawn.append(part)
                write(a_job, part, 10.0)

    first, second = claims(a_job, store, 0), claims(a_job, store, 1)
    threads = [threading.Thread(target=work, args=(own,)) for own in (second, first)]
    for thread in threads:
        thread.start()
    threads[1].join(30)
    session_of_first = Session(store, 0, Worker(rank=1, world=2))
    session_of_first.set(FINISHED, "")
    threads[0].join(30)
    assert covered(drawn) == list(range(NUM_ROWS))
    assert first.plan == second.plan == load(a_job.folder)
    assert [part.num_rows for part in first.plan.parts] == [2, 2, 2, 2, 6, 6, 6, 6, 6, 2]


def test_a_later_start_has_the_same_parts(a_job: Job) -> None:
    own, drawn = claims(a_job, LocalStore(), 0), list[Part]()
    for parts in own.rounds():
        for part in parts:
            if part.index == 6:
                break
            write(a_job, part, 10.0)
            drawn.append(part)
    before = load(a_job.folder)
    again = make_plan(a_job.config, Path(a_job.config.model.path), before)
    assert again == before
    rest = Claims(session(LocalStore(), 0), again, a_job.folder, part_minutes=0.5)
    drawn += [part for parts in rest.rounds() for part in parts]
    assert covered(drawn) == list(range(NUM_ROWS))


def test_the_pace_is_decided_when_the_first_parts_are_already_done(a_job: Job) -> None:
    for part in a_job.plan.parts[:NUM_FIRST]:
        write(a_job, part, 10.0)
    drawn = [part for parts in claims(a_job, LocalStore(), 0).rounds() for part in parts]
    assert covered(drawn) == list(range(NUM_FIRST * 2, NUM_ROWS))


def test_a_worker_with_the_plan_of_the_last_start_gets_the_pace_in_this_one(a_job: Job) -> None:
    """It started before rank 0, whose plan is newer and has joined parts already."""
    store, drawn = LocalStore(), list[Part]()
    for part in a_job.plan.parts[:NUM_FIRST]:
        write(a_job, part, 10.0)
    decided(a_job)

    def work(rounds: Iterator[Claims]) -> None:
        drawn.extend(next(rounds))
        drawn.extend(next(rounds))

    rounds = claims(a_job, store, 1).rounds()
    thread = threading.Thread(target=work, args=(rounds,), daemon=True)
    thread.start()
    thread.join(0.3)
    late = Claims(session(store, 0), load(a_job.folder), a_job.folder, part_minutes=0.5)
    mine = [part for parts in late.rounds() for part in parts]
    thread.join(10)
    assert not thread.is_alive()
    assert covered([*mine, *drawn]) == list(range(NUM_FIRST * 2, NUM_ROWS)), "no part twice"


def test_a_worker_that_comes_in_the_second_turn_joins_the_parts_too(a_job: Job) -> None:
    """Its plan is older than the decision; the second turn is there for parts of a dead node."""
    store = LocalStore()
    write(a_job, a_job.plan.parts[0], 10.0)
    decided(a_job)
    for part in load(a_job.folder).parts:
        a_job.folder.data_file(part.index).touch()
    first = session(store, 0)
    first.set(PACE, "3")
    first.add(TURN, 1)
    late = claims(a_job, store, 1).rounds()
    drawn = list(next(late))
    assert drawn == [], "all parts are done, if they are joined as decided"


def test_the_ranks_of_a_group_join_parts_alike(a_job: Job) -> None:
    store = LocalStore()
    sessions = [session(store, rank) for rank in range(2)]

    def work(rank: ThreadRank) -> list[Part]:
        own, drawn = sessions[rank.rank], list[Part]()
        claims = Claims(own, a_job.plan, a_job.folder, rank, part_minutes=0.5)
        for parts in claims.rounds():
            for part in parts:
                drawn.append(part)
                if rank.rank == 0:
                    write(a_job, part, 10.0)
        if rank.rank == 0:
            own.set(FINISHED, "")
        return drawn

    first, second = on_ranks(2, work)
    assert first == second
    assert covered(first) == list(range(NUM_ROWS))


def test_the_first_decision_holds_if_two_launches_decide(a_job: Job) -> None:
    """That can happen on a file system without locks."""
    write(a_job, a_job.plan.parts[0], 10.0)
    assert decided(a_job) == 3
    write(a_job, a_job.plan.parts[0], 2.0)
    assert decided(a_job) == 3


def test_the_first_forward_is_not_timed(a_job: Job) -> None:
    """Kernels are compiled in it, which happens only once."""
    row = {"num_ok": 2, "total_s": 110.0, "warm_up_s": 100.0, "load_s": 30.0}
    assert pace._outcomes_per_s(pa.Table.from_pylist([{**row, **WHEN}], STATS_SCHEMA)) == 0.2


def test_dead_workers_are_not_waited_for(a_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """They drew the first parts and died, so there is nothing to time: no parts are joined."""
    monkeypatch.setattr("pipeline.plan.heartbeat.SILENT_S", 0.2)
    assert decided(a_job) == 1


@pytest.mark.parametrize(("workers", "sequences", "first"), [(1, 6, 64), (8, 64, 256), (2, 1, 64)])
def test_each_engine_is_filled_by_the_first_parts(
    checkpoint: Path, tmp_path: Path, workers: int, sequences: int, first: int
) -> None:
    """Parts have 4 rows."""
    changes = {"data__part_minutes": 1.0, "engine__max_sequences": sequences}
    config = job(checkpoint, tmp_path / "in.parquet", tmp_path / "run", **changes)
    assert pace.num_first(config, 4, 10_000, workers) == first


def test_a_plan_of_few_parts_is_final(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(65))
    config = job(checkpoint, data, tmp_path / "a", data__part_rows=1, data__part_minutes=5.0)
    assert not make_plan(config, checkpoint).is_final
    config = job(checkpoint, data, tmp_path / "a", data__part_rows=2, data__part_minutes=5.0)
    assert make_plan(config, checkpoint).is_final


def test_status_shows_the_joined_parts(a_job: Job, status: Status) -> None:
    lines = status(a_job.folder.path)[1]
    assert lines["parts"] == "0 of 20 done (all but the first 4 will be joined into larger ones)"
    a_job.folder.write_text(a_job.folder.pace_file, '{"num_joined": 3}')
    lines = status(a_job.folder.path)[1]
    assert (lines["parts"], lines["left"]) == ("0 of 10 done", "parts 0-9")
