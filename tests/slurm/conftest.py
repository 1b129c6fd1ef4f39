"""A real Slurm for the tests of this folder, which are skipped where its programs are missing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing_binaries

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = missing_binaries()
    skip = pytest.mark.skip(
        reason=f"Slurm's {', '.join(missing)} not found; `make test-slurm` installs them"
    )
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            if missing:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def lasting_cluster() -> Iterator[Cluster]:
    with Cluster() as started:
        yield started


@pytest.fixture
def cluster(lasting_cluster: Cluster) -> Iterator[Cluster]:
    """Two nodes that all tests use one after the other; what a test leaves running is cancelled."""
    yield lasting_cluster
    lasting_cluster.cancel_all()
