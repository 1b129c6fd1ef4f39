"""Fixtures of the end-to-end tests: a tiny checkpoint and its input, jobs that stop, and an S3
server with faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.spec import AbstractFileSystem

from pipeline.run_folder import lease, store
from tests.checkpoints import prompts, write_checkpoint, write_parquet
from tests.end_to_end.flaky_store import KEYS, SHARE, FlakyStore, flaky_store
from tests.end_to_end.quick_beats import BEAT_S, LAPSE_S, WAIT_S
from tests.end_to_end.stopped import Stopped


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint; tests only read it."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 rows. A file of tests that need others has a fixture of its own."""
    return write_parquet(tmp_path / "in.parquet", prompts(20))


@pytest.fixture
def stopped(capfd: pytest.CaptureFixture[str]) -> Stopped:
    return Stopped(capfd)


def forget_the_store() -> None:
    """Drop the stores that were opened in another environment."""
    store._bucket.cache_clear()
    store.Stored.clear_instance_cache()


@pytest.fixture(scope="module")
def server() -> Iterator[FlakyStore]:
    with flaky_store(SHARE) as served, pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": served.endpoint}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        forget_the_store()
        yield served
    forget_the_store()


@pytest.fixture
def s3(server: FlakyStore) -> AbstractFileSystem:
    """The file system of a server that fails every fifth request."""
    server.share = SHARE
    return store.fs_and_path("s3://bucket")[0]


@pytest.fixture
def steady(server: FlakyStore) -> FlakyStore:
    """The server without faults, for tests of something else."""
    server.share = 0.0
    return server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease on run.lock lapses in seconds."""
    for name, value in {
        "BEAT_S": BEAT_S,
        "LAPSE_S": LAPSE_S,
        "WAIT_S": WAIT_S,
        "POLL_S": 0.1,
    }.items():
        monkeypatch.setattr(lease, name, value)
