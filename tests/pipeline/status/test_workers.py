"""The line about the workers at work: how many, where, the slowest, those that are silent."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.stats.starts import Start
from pipeline.status.workers import Workers
from tests.pipeline.generate.test_driver import Job, StandIn
from tests.pipeline.stats.timelines import points, table_of, write_timeline
from tests.pipeline.status.command import Status


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    return folder


def start(folder: RunFolder, number: int, num_workers: int, share: str | None = None) -> None:
    record = Start(number=number, num_workers=num_workers, settings={"share": share})
    folder.write_text(folder.start_file(number), json.dumps(asdict(record)))


def worker(
    rank: int,
    tokens: int = 400,
    *,
    start: int = 1,
    silent_s: float = 5.0,
    num: int = 50,
    **its: Any,
) -> list[dict[str, Any]]:
    """The points of a worker that had 2 s for each, until `silent_s` ago."""
    began = time.time() - silent_s - 2 * num
    values = {"host": f"node{rank // 4}", "num_generated_tokens": tokens}
    return [row | {"start": start} for row in points(rank, began, num, **values | its)]


def line(folder: RunFolder, *workers: list[dict[str, Any]]) -> str | None:
    return Workers(folder).line(table_of([row for its in workers for row in its]))


def test_workers_alike_are_counted_with_their_median(folder: RunFolder) -> None:
    start(folder, 1, 8)
    # 50 points of 400 tokens in 100 s, 1.5 of which loaded the model
    expected = "8 on node0, node1; median 203 tokens/s"
    assert line(folder, *(worker(rank) for rank in range(8))) == expected


def test_the_slowest_is_named_only_if_it_is_far_behind(folder: RunFolder) -> None:
    start(folder, 1, 8)
    others = [worker(rank) for rank in range(7)]
    near, far = line(folder, *others, worker(7, 300)), line(folder, *others, worker(7, 200))
    assert near == "8 on node0, node1; median 203 tokens/s"
    said = "slowest: rank 7 on node1 with 102 tokens/s, 50% below the median of 203"
    assert far == f"8 on node0, node1; {said}"


@pytest.mark.parametrize("few", [{"num_ok": 0, "num": 50}, {"num": 10}])
def test_too_little_work_is_not_compared(folder: RunFolder, few: dict[str, Any]) -> None:
    """Too few rows, too little time."""
    start(folder, 1, 4)
    said = line(folder, *(worker(rank) for rank in range(3)), worker(3, 1, **few))
    assert said == "4 on node0; median 203 tokens/s"


def test_two_workers_have_no_median(folder: RunFolder) -> None:
    start(folder, 1, 2)
    assert line(folder, worker(0), worker(1, 1)) == "2 on node0"


def test_a_worker_that_is_silent_is_named(folder: RunFolder) -> None:
    """Rows may take long: then all are silent, and none is named."""
    start(folder, 1, 4)
    lively = [worker(rank) for rank in range(3)]
    said = line(folder, *lively, worker(3, silent_s=1205))
    assert said is not None
    assert "; rank 3 on node0 finished no row for 20 min " in said
    slow = [worker(rank, silent_s=700) for rank in range(4)]
    assert line(folder, *slow) == "4 on node0; median 203 tokens/s"


def test_only_the_present_start_counts(folder: RunFolder) -> None:
    start(folder, 1, 4)
    start(folder, 2, 4)
    before = [worker(rank, 1, silent_s=5000) for rank in range(4)]
    assert line(folder, *before) == "4 started, no row finished yet"
    now = [worker(rank, start=2) for rank in range(3)]
    expected = "4 on node0, 3 of them have finished rows; median 203 tokens/s"
    assert line(folder, *before, *now) == expected


def test_launches_with_shares_are_at_work_together(folder: RunFolder) -> None:
    """Each has a rank 0; share 0/3 was started twice."""
    for number, share in enumerate(["0/3", "1/3", "2/3", "0/3"], start=1):
        start(folder, number, 1, share)
    at_work = [worker(0, start=number, host=f"n{number}") for number in (2, 4)]
    slow = worker(0, 100, start=3, host="n3")
    said = line(folder, worker(0, 1, start=1, host="gone"), *at_work, slow)
    assert said == (
        "3 on n2, n3, n4; slowest: rank 0 of share 2/3 on n3 with 50.76 tokens/s, "
        "75% below the median of 203"
    )


def test_a_launch_of_all_parts_ends_what_shares_have_begun(folder: RunFolder) -> None:
    start(folder, 1, 1, "0/2")
    start(folder, 2, 1, "1/2")
    start(folder, 3, 2)
    assert line(folder, worker(0, start=1), worker(0, start=3)) == (
        "2 on node0, 1 of them have finished rows"
    )


def test_a_new_start_is_seen_and_nothing_is_said_without_one(folder: RunFolder) -> None:
    workers, none = Workers(folder), pa.Table.from_pylist([], schema=table_of([]).schema)
    assert workers.line(none) is None
    start(folder, 1, 2)
    assert workers.line(none) == "2 started, no row finished yet"


def test_status_tells_of_workers_only_while_somebody_is_at_work(a_job: Job, status: Status) -> None:
    a_job.run(StandIn(room=3))
    a_job.folder.data_file(1).unlink()
    for file in a_job.folder.timeline.iterdir():
        file.unlink()
    start(a_job.folder, 1, 8)
    write_timeline(a_job.folder, "all", [row for rank in range(8) for row in worker(rank)])
    assert "workers" not in status(a_job.folder.path)[1]
    with locked(a_job.folder):
        assert status(a_job.folder.path)[1]["workers"].startswith("8 on node0, node1; median ")
