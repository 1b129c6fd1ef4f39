"""The progress line, and the limit on failures."""

import os
import sys
import time

import pytest

from engine.request import FinishReason, Result
from engine.stats import EngineStats
from pipeline.run_folder.output_rows import Outcome
from pipeline.stats.progress import (
    ENOUGH_ROWS,
    Counters,
    ProgressLine,
    Tally,
    read_counters,
    show_progress,
)
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session


def line() -> ProgressLine:
    """400 rows, of which 100 were done before this start; 2 of those failed."""
    line = ProgressLine("demo", 400, done_before=100, failed_before=2)
    line.start(1000.0)
    return line


def test_rows_done_before_count_as_done_but_not_in_the_rates() -> None:
    assert line().text(Counters(1010.0, rows=50, failed=1, tokens=2000)) == (
        "demo: 150/400 rows (38%), 3 failed, 0:00:50 left | 200 tokens/s (200 overall) | "
        "5.0 rows/s (5.0 overall)"
    )


def test_the_current_rate_is_that_of_the_last_half_minute() -> None:
    a_line = line()
    for second in range(1, 101):
        text = a_line.text(Counters(1000.0 + second, rows=second, tokens=10 * second))
    assert "10 tokens/s (10 overall)" in text
    for second in range(101, 141):
        text = a_line.text(Counters(1000.0 + second, rows=100, tokens=1000))
    assert "0 tokens/s (7 overall)" in text
    assert "0:04:40 left" in text, "without recent rows, the overall rate is used"


def test_a_narrow_terminal_gets_the_first_pieces_whole() -> None:
    a_line = ProgressLine("n" * 50 + "\x1b[2J\n", 400, 0, 0, max_sequences=32)
    a_line.start(0.0)
    now = Counters(10.0, rows=40, tokens=2500, forwards=500, iterations=20)
    whole = a_line.text(now)
    assert whole.startswith("n" * 20 + "...: 40/400 rows")
    assert whole.endswith(" | 5.00 tokens/forward | 25.0 of 32 sequences/batch")
    pieces = whole.split(" | ")
    for width in range(1, len(whole) + 5):
        cut = a_line.text(now, width)
        assert len(cut) <= width
        assert "\x1b" not in cut
        assert cut.split(" | ") == pieces[: cut.count(" | ") + 1] or width < len(pieces[0])
    assert a_line.text(now, len(whole)) == whole


def test_occupancy_is_that_of_the_last_half_minute() -> None:
    a_line = line()
    for second in range(1, 101):
        early = min(second, 50)
        now = Counters(1000.0 + second, rows=1, forwards=32 * early + second, iterations=second)
        text = a_line.text(now)
    assert text.endswith("1.0 sequences/batch")


def test_before_the_first_row_the_time_left_is_unknown() -> None:
    assert "0 failed, ? left" in ProgressLine("demo", 400, 0, 0).text(Counters(1001.0))


def outcome(failed: bool) -> Outcome:
    reason = FinishReason.ERROR if failed else FinishReason.EOS
    error = "prompt: empty" if failed else None
    result = Result(
        request_id=0, finish_reason=reason, error=error, token_ids=[1], num_prompt_tokens=1, seed=0
    )
    return Outcome(result, None)


def alone() -> Session:
    return Session(LocalStore(), 0, Worker())


def tallies(num_to_do: int, limit: float) -> tuple[Session, list[Tally]]:
    store = LocalStore()
    sessions = [Session(store, 0, Worker(rank=rank, world=2)) for rank in range(2)]
    return sessions[0], [Tally(session, num_to_do, limit) for session in sessions]


def test_counts_are_added_over_the_workers() -> None:
    session, both = tallies(100, 0.5)
    for tally in both:
        for failed in (True, False, False):
            tally.count(outcome(failed))
        tally.publish()
    total = read_counters(session)
    assert (total.rows, total.failed, total.tokens) == (6, 2, 6)


def test_forwards_are_counted_once_each() -> None:
    session, _ = tallies(100, 0.5)
    stats = EngineStats()
    tally = Tally(session, 100, 0.5, stats)
    for _ in range(3):
        stats.num_iterations += 1
        stats.num_forwards = {"block": 5 * stats.num_iterations, "refresh": 1}
        tally.publish()
    total = read_counters(session)
    assert (total.forwards, total.iterations) == (16, 3)


def test_above_the_limit_the_job_stops_with_the_counts_and_an_error() -> None:
    _, both = tallies(10_000, 0.1)
    for i in range(ENOUGH_ROWS - 1):
        both[i % 2].count(outcome(failed=i % 5 == 0))
        both[i % 2].publish()
    both[0].count(outcome(failed=False))
    with pytest.raises(ValueError, match=r"max_failed_fraction=0\.1: ") as error:
        both[0].publish()
    assert f"of {ENOUGH_ROWS} rows failed" in str(error.value)
    assert "prompt: empty" in str(error.value)


def test_rows_done_before_this_start_count_towards_the_limit() -> None:
    """900 rows before, nearly all good: 150 failed rows do not stop the job, just as they would not
    in an uninterrupted run."""
    tally = Tally(alone(), 1000, 0.5, num_before=900, failed_before=10)
    for _ in range(ENOUGH_ROWS + 50):
        tally.count(outcome(failed=True))
        tally.publish()
    tally = Tally(alone(), 1000, 0.5, num_before=900, failed_before=450)
    with pytest.raises(ValueError, match=r"451 of 901 rows failed"):
        tally.count(outcome(failed=True))


def test_rows_that_are_done_twice_do_not_exceed_the_total() -> None:
    """A lost node had published rows of open parts, which were then done again."""
    line = ProgressLine("demo", 100, 60, 0)
    line.start(0.0)
    text = line.text(Counters(1.0, rows=50))
    assert text.startswith("demo: 100/100 rows (100%), 0 failed, 0:00:00")


def test_the_message_has_no_example_if_this_start_saw_no_error() -> None:
    tally = Tally(alone(), 1000, 0.1, num_before=500, failed_before=400)
    with pytest.raises(ValueError, match=r"400 of 501 rows failed\nThe column"):
        tally.count(outcome(failed=False))


def test_a_few_rows_at_the_start_do_not_stop_a_job() -> None:
    _, both = tallies(10_000, 0.1)
    for _ in range(ENOUGH_ROWS // 2 - 1):
        for tally in both:
            tally.count(outcome(failed=True))
            tally.publish()


def test_stderr_that_is_no_terminal_gets_whole_lines(capfd: pytest.CaptureFixture[str]) -> None:
    session, both = tallies(2, 0.5)
    with show_progress(ProgressLine("demo", 2, 0, 0), session, every_s=0.05):
        for tally in both:
            tally.count(outcome(failed=False))
            tally.publish()
    stderr = capfd.readouterr().err
    assert stderr.splitlines()[-1].startswith("demo: 2/2 rows (100%), 0 failed")
    assert "\r" not in stderr


def test_on_a_terminal_one_line_is_renewed_that_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stats.progress.TERMINAL_S", 0.02)
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((60, 30)))
    ours, terminal = os.openpty()
    session, (tally, _) = tallies(2, 0.5)
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with show_progress(ProgressLine("demo", 2, 0, 0, 32), session, every_s=60.0):
            time.sleep(0.2)
            tally.count(outcome(failed=False))
            tally.publish()
        said = ""
        while not said.endswith("\n"):
            said += os.read(ours, 1 << 16).decode()
    os.close(ours)
    renewed = said.rstrip("\r\n").split("\r")[1:]
    assert said.count("\n") == 1, "only the last line is ended"
    assert len(renewed) > 2
    assert all(line.endswith("\x1b[K") and len(line) < 60 + len("\x1b[K") for line in renewed)
    assert renewed[0].startswith("demo: 0/2 rows (0%), 0 failed, ? left")
    assert renewed[-1].startswith("demo: 1/2 rows (50%), 0 failed")
