"""The installed wheel, run from a folder that holds an `engine/` and a `pipeline.py` of its own."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine import __version__

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = """
import engine
from engine import LLM
from engine.model.defaults import PACKAGES
(answer,) = LLM(PACKAGES / "jobs/demo/model").generate("hello", max_new_tokens=8, progress=False)
print(engine.__file__, answer.error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build/ folder is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(source / "dist"), str(source)], check=True, timeout=900)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder with modules that have our names."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("raise SystemExit('the user own engine')")
    (tmp_path / "pipeline.py").write_text("raise SystemExit('the user own pipeline')")
    return tmp_path


def run(home: Path, site: Path, *args: str, safe: bool = True) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site)} | ({"PYTHONSAFEPATH": "1"} if safe else {})
    return subprocess.run(
        [sys.executable, *args], cwd=home, env=env, capture_output=True, text=True, timeout=900
    )


def test_a_job_and_a_notebook_run_from_the_wheel(home: Path, installed: Path) -> None:
    job = run(home, installed, "-m", "pipeline.run", "conf=demo", "data.limit=3", "output=out")
    assert job.returncode == 0, job.stderr
    assert (home / "out" / "summary.json").is_file()
    assert (home / "out" / "report.html").is_file()
    notebook = run(home, installed, "-c", NOTEBOOK)
    assert notebook.stdout.split() == [str(installed / "engine" / "__init__.py"), "None"]
    score = run(home, installed, "-m", "pipeline.score", "out")
    assert score.returncode == 0, score.stderr


def test_another_engine_than_our_own_is_refused_in_one_line(home: Path, installed: Path) -> None:
    (home / "pipeline.py").unlink()
    stopped = run(home, installed, "-m", "pipeline.run", "conf=demo", safe=False)
    assert stopped.returncode == 1
    (line,) = stopped.stderr.splitlines()
    assert f"finds {home / 'engine' / '__init__.py'}, not {installed / 'engine'}: set" in line


def test_the_wheel_says_its_version_and_holds_licence_and_every_module(wheel: Path) -> None:
    assert wheel.name.startswith(f"dllm_pipeline-{__version__}-")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for package in ("engine", "pipeline", "jobs"):
        for module in (ROOT / package).rglob("*.py"):
            assert str(module.relative_to(ROOT)) in names, "pyproject.toml lists every package"
    for file in (ROOT / "pipeline" / "report" / "templates").iterdir():
        assert str(file.relative_to(ROOT)) in names, "pyproject.toml lists the templates"
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert str("pipeline" / file.relative_to(ROOT)) in names
