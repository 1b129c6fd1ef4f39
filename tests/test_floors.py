"""The floors of pyproject.toml hold, and import-linter sees it when one does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "pipeline", "jobs")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    lint = Path(sys.executable).with_name("lint-imports")
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [lint, "--no-cache"], cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=lambda _, names: _not_python(names)
        )
    return folder


def _not_python(names: list[str]) -> set[str]:
    return {name for name in names if "." in name and not name.endswith(".py")}


def test_the_floors_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "told"),
    [
        ("pipeline/config/job.py", "import pipeline.plan.build", "pipeline.config.job"),
        ("pipeline/input/files.py", "import pipeline.stats.clock", "pipeline.input.files"),
        ("pipeline/stats/clock.py", "import hydra", "pipeline.stats.clock"),
        ("engine/batch.py", "import pipeline.stats.clock", "engine.batch"),
        ("engine/batch.py", "import pyarrow", "engine.batch"),
        ("engine/kernels/reference.py", "import engine.staging", "engine.kernels.reference"),
        ("pipeline/attic/__init__.py", '"""A room on no floor."""', "attic"),
    ],
)
def test_a_line_that_breaks_a_floor_is_named(copy: Path, module: str, line: str, told: str) -> None:
    file = copy / module
    before = file.read_text() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text((before or "") + f"\n{line}\n")
    try:
        done = lint_imports(copy)
    finally:
        if before is None:
            shutil.rmtree(file.parent)
        else:
            file.write_text(before)
    assert done.returncode == 1
    broken = done.stdout.split("Broken contracts")[-1]
    assert told in broken
    number = len((before or "").splitlines()) + 2
    assert f"(l.{number})" in broken or told == "attic"
