from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint; tests only read it."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))
