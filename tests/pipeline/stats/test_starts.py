"""The starts of a job are told apart by what its workers record, not by the time between them."""

from pathlib import Path
from typing import Any

import pytest

from engine.stats import EngineStats
from pipeline.report.over_time import over_time
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import Meter
from pipeline.stats.timeline import Timeline, read_timeline
from pipeline.stats.totals import add_up, spans_of_starts, workers
from tests.pipeline.stats.test_meter import ABOUT
from tests.pipeline.stats.timelines import points, table_of, write_timeline


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.make()
    return folder


def test_two_starts_at_the_same_time_are_two_files(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000_000_000)
    for _ in range(3):
        Timeline(Meter(EngineStats(), 1, ABOUT), folder).finish()
    assert len(list(folder.timeline.iterdir())) == 3
    assert add_up(read_timeline(folder)).num_starts == 3


@pytest.mark.parametrize("pause_s", [0.0, 0.3, 1.0, 5.0, 86_400.0])
@pytest.mark.parametrize("ranks", [[0], [0, 1], [1, 0, 2]])
def test_a_start_is_its_own_however_soon_it_follows(pause_s: float, ranks: list[int]) -> None:
    """The last rank of each start begins 0.2 s after the others."""
    rows: list[dict[str, Any]] = []
    for number in range(3):
        begin = 1000.0 + number * (20.0 + pause_s)
        late = begin + 0.2 if len(ranks) > 1 else begin
        for rank in ranks[:-1]:
            rows += points(rank, begin, 10)
        rows += points(ranks[-1], late, 5)
    table = table_of(rows)
    begins = [1000.0 + number * (20.0 + pause_s) for number in range(3)]
    length = 20.0 if len(ranks) > 1 else 10.0
    expected = [(begin, begin + length) for begin in begins]
    assert spans_of_starts(table) == [pytest.approx(span) for span in expected]
    charts = over_time(table)
    assert charts is not None
    assert len(charts.gaps) == 2
    totals = add_up(table)
    assert totals.num_starts == 3 * len(ranks)
    assert totals.wall_s == pytest.approx(3 * length)
    assert totals.tail_s == pytest.approx(3 * 9.8 if len(ranks) > 1 else 0.0)


def test_the_spans_of_starts_do_not_overlap_if_the_hosts_clocks_differ() -> None:
    """Rank 1's clock is half a second ahead: its last points seem to lie in the second start."""
    first = [*points(0, 100.0, 10), *points(1, 100.5, 40, every_s=0.5)]
    second = [*points(0, 120.1, 10), *points(1, 120.6, 40, every_s=0.5)]
    spans = spans_of_starts(table_of([*first, *second]))
    assert len(spans) == 2
    (begin, one_end), (other_begin, end) = spans
    assert (begin, end) == (100.0, pytest.approx(140.6))
    assert 120.0 <= one_end <= other_begin <= 120.6


def test_a_start_of_fewer_workers_has_no_tail_of_those_that_are_gone() -> None:
    """Rank 1 is not in the second start, which follows at once."""
    rows = [row for rank in (0, 1) for row in points(rank, 0.0, 10)]
    totals = add_up(table_of([*rows, *points(0, 20.5, 10)]))
    assert totals.tail_s == pytest.approx(0.0)


def test_a_run_folder_of_before_is_read(folder: RunFolder) -> None:
    """Its files are named by rank and time alone."""
    write_timeline(folder, "rank-0000-1700000000000", points(0, 0.0, 10))
    write_timeline(folder, "rank-0000-1700000060000-0badcafe", points(0, 60.0, 10))
    table = read_timeline(folder)
    assert spans_of_starts(table) == [(0.0, 20.0), (60.0, 80.0)]
    assert add_up(table).num_starts == 2


def shared(share: str, *args: Any, **amounts: Any) -> list[dict[str, Any]]:
    return points(*args, **amounts, share=share)


def test_the_ranks_0_of_two_shares_are_two_workers() -> None:
    """Share 0/2 works twice; share 1/2, which goes on all the time, makes it one span."""
    rows = [*shared("0/2", 0, 1000.0, 10), *shared("0/2", 0, 1030.0, 5), *points(0, 900.0, 5)]
    rows += [*shared("1/2", 0, 1001.0, 20), *shared("1/2", 1, 1001.0, 18)]
    table = table_of(rows)
    assert spans_of_starts(table) == [(900.0, 910.0), (1000.0, 1041.0)]
    totals = add_up(table)
    assert (totals.num_workers, totals.num_starts) == (4, 5)
    assert totals.wall_s == pytest.approx(51.0)
    assert totals.tail_s == pytest.approx(4.0), "of 1/2's rank 1; a share that has ended is no tail"
    assert [(name, work.num_rows) for name, work in workers(table)] == [
        ("0", 5),
        ("0/2", 15),
        ("1/2, rank 0", 20),
        ("1/2, rank 1", 18),
    ]
    charts = over_time(table)
    assert charts is not None
    assert (charts.num_workers, len(charts.gaps)) == (4, 1)
    assert charts.run_s == pytest.approx(51.0)
    names = [line.name for line in charts.tokens_per_s]
    assert names[0] == "worker 0"
    assert names[-2:] == ["worker 1/2, rank 1", "all workers"]


def test_a_run_of_shares_alone() -> None:
    table = table_of([*shared("10/11", 0, 1000.0, 5), *shared("2/11", 0, 1005.0, 5)])
    assert spans_of_starts(table) == [(1000.0, 1015.0)]
    assert [name for name, _ in workers(table)] == ["2/11", "10/11"]
    assert add_up(table).tail_s == 0.0
    assert workers(table_of([])) == []
    assert add_up(table_of([])).num_workers == 0
