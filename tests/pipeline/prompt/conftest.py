"""Folders with a tokenizer of each kind; tests only read them."""

from pathlib import Path

import pytest

from tests.engine.text.tokenizer_folders import KINDS, save


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: save(build(), root / name) for name, build in KINDS.items()}


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["byte_level"]
