"""The lease on run.lock that a launch holds if its run folder is on a store."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from fsspec.spec import AbstractFileSystem

from pipeline.run_folder import lease, store
from pipeline.run_folder.files import place
from tests.end_to_end.flaky_store import FlakyStore
from tests.end_to_end.quick_beats import LAPSE_S


def test_only_one_launch_takes_a_lapsed_lock_over_and_its_old_holder_ends(
    s3: AbstractFileSystem, steady: FlakyStore, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady.make_bucket("locks")
    lock = place("s3://locks/contested/run.lock")
    assert not isinstance(lock, Path)
    old, new, late = (lease.Lease(lock, name) for name in ("old", "new", "late"))
    old.take()
    seen = store.read_tagged(lock)
    began = time.monotonic()
    new.take()
    assert time.monotonic() - began >= LAPSE_S
    assert seen is not None
    assert not late._put(seen.tag), "the object has changed since `seen`"
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: signals.append(signum))
    old.beat()
    assert signals == [signal.SIGTERM]
    old.release()
    now = store.read_tagged(lock)
    assert now is not None
    assert json.loads(now.text)["holder"] == "new"
    new.release()
    assert store.read_tagged(lock) is None
