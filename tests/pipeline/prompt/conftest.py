"""Folders with a tokenizer of each kind; tests only read them."""

from pathlib import Path

import pytest

from tests.engine.text.tokenizer_folders import save_kinds


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_kinds(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["byte_level"]
