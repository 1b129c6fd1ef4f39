"""Every command that README.md and docs/*.md print is run as printed.

A real bash reads it, with stand-ins for python, torchrun, make and pip that write down what they
were given. What they were given must then be a job that can be composed, a target of the Makefile,
an extra of the package, or, of the commands on a run, end well on a small run.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
from torch.distributed.run import get_args_parser

from pipeline.calibrate.__main__ import read
from pipeline.launch.to_submit import to_submit
from pipeline.run import run
from tests.docs.test_config import own_file
from tests.launched import composed, jobs_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STAND_INS = ("python", "torchrun", "make", "pip")
STAND_IN = """#!{python}
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
"""
SHOWN = ("--help", "--cfg")


def blocks() -> Iterator[tuple[str, str]]:
    """(page, text for bash): each bash block, and each command within a line."""
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            yield page.name, block
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        for command in re.findall(
            r"`((?:python -m [^`\s]+|torchrun|make|pip install) [^`]+)`", prose
        ):
            yield page.name, command


BLOCKS = list(dict.fromkeys(blocks()))


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few rows, which has a task."""
    folder = tmp_path_factory.mktemp("small")
    run(composed("conf=demo", "stand_in=true", "data.limit=4", f"output={folder / 'run'}"), 0)
    return folder / "run"


@pytest.fixture
def home(tmp_path: Path, small_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the runs and files exist that the pages speak of."""
    for name in ("mine", "demo", "humaneval", "NAME"):
        shutil.copytree(small_run, tmp_path / "runs" / name)
    (tmp_path / "mine.yaml").write_text(own_file())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(script: str, folder: Path) -> list[list[str]]:
    """The commands that bash gives to our stand-ins, in their order."""
    log, programs = folder / "commands", folder / "bin"
    programs.mkdir()
    for name in STAND_INS:
        text = STAND_IN.format(python=sys.executable, log=str(log), name=name)
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", script], cwd=folder, env=env, check=True, timeout=60)
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_the_pages_have_commands_of_all_kinds() -> None:
    text = "\n".join(command for _, command in BLOCKS)
    for kind in ("make demo", "torchrun --nproc", "pipeline.status", "pip install", "conf=mine"):
        assert kind in text


@pytest.mark.filterwarnings("ignore::RuntimeWarning:runpy")
@pytest.mark.parametrize(
    ("page", "script"),
    BLOCKS,
    ids=[f"{page}: {' '.join(text.split())[:70]}" for page, text in BLOCKS],
)
def test_a_printed_command_can_be_typed(page: str, script: str, home: Path) -> None:
    commands = given(script, home)
    assert commands
    for program, *args in commands:
        if program == "torchrun":
            parsed = get_args_parser().parse_args(args)
            assert parsed.module
            check_module(parsed.training_script, parsed.training_script_args)
        elif program == "python":
            assert args[0] == "-m"
            check_module(args[1], args[2:])
        elif program == "make":
            check_make(args)
        else:
            check_pip(args)


def check_module(module: str, args: list[str]) -> None:
    if module == "pipeline.run":
        assert jobs_of(*args) or args[0] in SHOWN or any(flag in args for flag in SHOWN)
        return
    assert find_spec(module) is not None
    if module == "jobs.lm_eval":  # the harness's tests run it
        check_harness(args)
        return
    if module == "jobs.submit":
        assert to_submit(args)
        return
    if module == "pipeline.calibrate":  # it takes minutes; tests/pipeline/calibrate runs it
        assert read(args)[1] is not None
        return
    if module == "jobs.cancel":  # it cancels; tests/slurm has it
        assert len(args) == 1
        return
    if module.startswith("tests."):
        return  # these write into the checkout
    if module == "jobs.bench":
        with mock.patch(f"jobs.bench.{args[0]}.run", side_effect=SystemExit(0)):
            assert ended(module, args) == 0
        return
    local = [re.sub(r"^s3://bucket/", "", arg) for arg in args]
    assert ended(module, local) in ((0, 1) if module == "engine.model.plan" else (0,))


def ended(module: str, args: list[str]) -> int:
    """The exit code of `python -m MODULE ARGS`."""
    with mock.patch("sys.argv", [module, *args]):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def check_harness(args: list[str]) -> None:
    cli = pytest.importorskip("lm_eval._cli.harness", reason="needs the extra lm-eval")
    from jobs.lm_eval.arguments import generation_of, model_arguments

    with mock.patch("sys.argv", ["lm_eval", *args]):
        parsed = cli.HarnessCLI().parse_args()
    assert model_arguments(parsed.model_args).path
    assert generation_of(parsed.gen_kwargs, 1).max_new_tokens > 1


def check_make(targets: list[str]) -> None:
    make = shutil.which("make")
    assert make is not None
    subprocess.run([make, "-n", "-C", ROOT, *targets], check=True, capture_output=True)


def check_pip(args: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert args[0] == "install"
    (wanted,) = [arg for arg in args[1:] if not arg.startswith(("-", "http"))]
    name, _, extras = wanted.partition("[")
    assert name in (".", "torch", "aiohttp", project["name"])
    if extras:
        assert set(extras.rstrip("]").split(",")) <= set(project["optional-dependencies"])
