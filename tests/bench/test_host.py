"""The benchmark of the host measures full batches, of this checkout and of another one."""

import json
import sys
from pathlib import Path

import pytest

from jobs.bench import __main__ as command
from jobs.bench import host
from jobs.bench.iteration_times import CACHES, PARTS, Feed

ROOT = Path(host.__file__).parents[2]


@pytest.mark.parametrize("cache", CACHES)
def test_the_batch_is_always_full(cache: str) -> None:
    feed = Feed(cache, 3)
    for _ in range(300):
        before = feed.engine.stats.num_forwards.copy()
        feed.iteration()
        after = feed.engine.stats.num_forwards
        assert sum(after.values()) - sum(before.values()) == 3
    assert feed.engine.stats.num_generated_tokens > 0


def test_host_ends_with_its_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--batches", "1", "2", "--iterations", "3", "--rounds", "1", "--before", str(ROOT)]
    monkeypatch.setattr(sys, "argv", ["bench", "host", *few])
    command.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    cases = {(case["cache"], case["batch"]): case for case in report["cases"]}
    assert cases.keys() == {(cache, batch) for cache in CACHES for batch in (1, 2)}
    for case in cases.values():
        for name in ("before", "now"):
            assert tuple(case[name]["parts_ms"]) == PARTS
            assert all(ms > 0 for ms in case[name]["parts_ms"].values())
        ratio = case["before"]["total_ms"] / case["now"]["total_ms"]
        assert case["before_over_now"] == pytest.approx(ratio)


def test_what_is_no_checkout_is_refused() -> None:
    with pytest.raises(ValueError, match="--before=no-such-revision: neither a folder"):
        host.run(before="no-such-revision", batches=[1], iterations=1, rounds=1)
