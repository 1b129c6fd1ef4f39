"""A command line in an empty folder."""

from pathlib import Path

import pytest

from tests.pipeline.launch.command_line import Launched


@pytest.fixture
def launched(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Launched:
    """In an empty folder, as the only worker."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    return Launched(capfd)
