"""The command that a run records gives the same job when it is typed again."""

import shlex
import sys

import pytest

from pipeline.run_folder.at_work import Launch
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.command import command, this_launch
from pipeline.workers.ranks import Worker

UNDER_TORCHRUN = Worker(world=8, local_world=4, under_torchrun=True)
ARGS = ["-m", "pipeline.run", "conf=demo", "prompt.template='a {b}\n\"c\"'", "output=my run"]
OWN = ["/venv/bin/python3", "-u", *ARGS]
OPTIONS = ["--nproc-per-node=4", "--nnodes=2", "--rdzv-endpoint=head:29500"]


@pytest.mark.parametrize(
    ("worker", "own", "parents", "wanted"),
    [
        (Worker(), ["python", *ARGS], ["bash"], ["python", *ARGS]),
        (
            UNDER_TORCHRUN,
            OWN,
            ["/venv/bin/python3", "/nowhere/bin/torchrun", *OPTIONS, *ARGS],
            ["/nowhere/bin/torchrun", *OPTIONS, *ARGS],
        ),
        (
            UNDER_TORCHRUN,
            OWN,
            ["python", "-m", "torch.distributed.run", *OPTIONS, *ARGS],
            ["python", "-m", "torch.distributed.run", *OPTIONS, *ARGS],
        ),
        (UNDER_TORCHRUN, OWN, [], ["torchrun", "--nproc-per-node=4", "--nnodes=2", *ARGS]),
        (
            UNDER_TORCHRUN,
            OWN,
            ["slurmstepd"],
            ["torchrun", "--nproc-per-node=4", "--nnodes=2", *ARGS],
        ),
        (Worker(world=4), ["python", *ARGS], [], ["srun", "--ntasks=4", "python", *ARGS]),
    ],
)
def test_what_was_typed(
    worker: Worker, own: list[str], parents: list[str], wanted: list[str]
) -> None:
    assert shlex.split(command(worker, own, parents)) == wanted


def test_torchrun_of_the_path_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/venv/bin/{name}")
    parents = [
        "/venv/bin/python3",
        "/venv/bin/torchrun",
        "--nproc-per-node=8",
        "-m",
        "pipeline.run",
    ]
    typed = command(UNDER_TORCHRUN, OWN, parents)
    assert typed == "torchrun --nproc-per-node=8 -m pipeline.run"


def test_the_line_goes_to_the_folder_first() -> None:
    launch = Launch(
        command="python -m pipeline.run",
        working_folder="/home/me/my work",
        host="h",
        pid=1,
        started_at="2026-01-01T00:00:00+00:00",
        num_ranks=1,
    )
    assert launch.resume == "cd '/home/me/my work' && python -m pipeline.run"


def test_keys_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "data.path=https://u:hush-hush@host/f.parquet"]
    )
    assert "hush" not in this_launch(Worker(), RunFolder("runs/a")).command
