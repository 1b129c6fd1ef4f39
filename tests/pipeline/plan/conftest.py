"""Input that the tests of plans share."""

from pathlib import Path

import pytest

from tests.checkpoints import prompts, write_parquet


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    """Two files, of 10 and 5 rows."""
    return [
        write_parquet(tmp_path / "one.parquet", prompts(10)),
        write_parquet(tmp_path / "two.parquet", prompts(5)),
    ]
