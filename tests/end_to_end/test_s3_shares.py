"""Shares on a store, where launches hold leases."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fsspec.spec import AbstractFileSystem
from upath import UPath

from engine.errors import UserError
from pipeline.run import run
from pipeline.run_folder import lease, store
from pipeline.run_folder.at_work import at_work
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import check_is_unlocked, locked, own_lock
from pipeline.run_folder.share import Share
from tests.checkpoints import job, prompts, write_parquet
from tests.end_to_end.flaky_store import FlakyStore
from tests.end_to_end.test_shares import at_once

RUN = "s3://bucket/runs/shares"


@pytest.fixture
def bucket(s3: AbstractFileSystem, steady: FlakyStore) -> Iterator[AbstractFileSystem]:
    steady.make_bucket("bucket")
    yield s3
    for file in s3.find("bucket/runs"):
        s3.rm_file(file)


def of(share: str | None) -> RunFolder:
    return RunFolder(RUN, Share.of(share))


def lease_of(share: str | None) -> UPath:
    lock = own_lock(of(share))
    assert isinstance(lock, UPath)
    return lock


def left_behind(share: str | None) -> None:
    """What a killed launch leaves."""
    store.write_if(lease_of(share), json.dumps({"holder": "dead", "id": "0", "beats": 1}), None)


def test_three_at_once(
    checkpoint: Path, bucket: AbstractFileSystem, quick: None, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(24))
    args = ["model=demo", f"model.path={checkpoint}", f"data.path={data}", "data.part_rows=3"]
    at_once("0,1,2/3", *args, f"output={RUN}", "stand_in=true", "generation.max_new_tokens=8")
    folder, raw = RunFolder(RUN), json.loads(store.read(UPath(f"{RUN}/run.json")))
    assert folder.parts_done() == set(range(8))
    assert len(store.listing(UPath(f"{RUN}/starts"))) == 3
    assert set(store.listing(UPath(f"{RUN}/logs"))) == {
        f"share-{index}-of-3-rank-0.log" for index in range(3)
    }
    left = {*store.listing(UPath(RUN)), *store.listing(UPath(f"{RUN}/shares"))}
    assert not any(name.endswith(".lock") for name in left), "all have given up their leases"
    plain = job(checkpoint, data, RUN, stand_in=True, data__part_rows=3)
    assert raw["fingerprint"]["data.part_rows"] == plain.data.part_rows
    with pytest.raises(SystemExit):  # it has other settings: a share's run is a run like any other
        run(plain, 0)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ("1/3", "1/3", "share 1/3: process 7"),
        ("1/3", None, "share 1/3: process 7"),
        (None, "1/3", "process 7"),
    ],
)
def test_who_is_refused(
    bucket: AbstractFileSystem, quick: None, first: str | None, second: str | None, named: str
) -> None:
    with lease.held(lease_of(first), "process 7"):
        for refuse in (check_is_unlocked, lambda folder: locked(folder).__enter__()):
            with pytest.raises(UserError, match=rf"works in this run folder \({named}\)"):
                refuse(of(second))
        assert not store.exists(lease_of(second)) or first == second, "it gave up its own lease"
    with locked(of(second)):
        assert at_work(of(None)).is_held is True


def test_other_shares_join_and_are_seen(bucket: AbstractFileSystem, quick: None) -> None:
    with ExitStack() as held:
        for share in ("1/3", "0/3"):
            check_is_unlocked(of(share))
            held.enter_context(locked(of(share)))
        now = at_work(RunFolder(RUN))
        assert (now.is_held, list(now.shares)) == (True, ["0/3", "1/3"])
        assert now.holder.startswith("share 0/3: process ")
    assert at_work(RunFolder(RUN)).is_held is False


@pytest.mark.parametrize("dead", [[None], ["0/2", "1/2"]])
def test_what_killed_launches_left_is_cleared_once(
    bucket: AbstractFileSystem,
    quick: None,
    dead: list[str | None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of the other kind too: so the next launches need not wait again."""
    for share in dead:
        left_behind(share)
    mine = "0/2" if dead == [None] else None
    with locked(of(mine)):
        for share in dead:
            assert not store.exists(lease_of(share))
    assert "dead); waiting up to 3 s to see whether it still is" in capfd.readouterr().err


def test_of_a_share_and_a_whole_that_begin_at_once_at_most_one_goes_on(
    bucket: AbstractFileSystem, quick: None
) -> None:
    for _ in range(2):
        inside, most, lock = list[str](), list[int](), threading.Lock()
        begin = threading.Barrier(2)

        def enter(
            share: str | None,
            inside: list[str] = inside,
            most: list[int] = most,
            lock: threading.Lock = lock,
            begin: threading.Barrier = begin,
        ) -> None:
            begin.wait()
            try:
                with locked(of(share)):
                    with lock:
                        inside.append(str(share))
                        most.append(len(inside))
                    threading.Event().wait(3.0)
                    with lock:
                        inside.remove(str(share))
            except UserError:
                pass

        threads = [threading.Thread(target=enter, args=(share,)) for share in ("0/2", None)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(most, default=0) <= 1
