"""jobs.submit and jobs.cancel, with commands in Slurm's place that note how they were called."""

import os
import re
from dataclasses import replace
from getpass import getuser
from pathlib import Path

import pytest
import yaml

from jobs.slurm.sbatch import parsed
from pipeline.config.slurm import slurm_config
from pipeline.launch import launch
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.commands import NoSlurm, SlurmError
from pipeline.slurm.records import submissions
from tests.jobs.fake_slurm import DEMO, FakeSlurm, queue, refused, submitted
from tests.launched import composed


def test_a_job_is_submitted_held_recorded_and_released(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret-value")
    monkeypatch.setenv("OTHER", "not for the job")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")  # of a job that submits this one
    args = (*DEMO, "output=runs/a b", "slurm.partition=main", "slurm.env=[MY_TOKEN]")
    assert submitted(*args) == 0

    (words,) = slurm.submitted()
    assert words[:2] == ["--parsable", "--hold"]
    script = Path(words[-1])
    assert script.parent == Path("runs/a b/slurm").absolute()
    lines = [its.removeprefix("#SBATCH ") for its in script.read_text().splitlines()]
    for word in words[2:-1]:
        assert word.partition("=")[0] in {its.partition("=")[0] for its in lines}, word
    (exported,) = [word for word in words if word.startswith("--export=")]
    assert "MY_TOKEN" in exported.split(",")
    assert {"PATH", "HOME"} < set(re.split("[=,]", exported))
    assert "OTHER" not in exported
    assert not [its for its in slurm.environment("sbatch") if its.startswith("SLURM_ARRAY")]
    assert slurm.calls("scontrol") == [["release", "101"]]

    (record,) = submissions(RunFolder("runs/a b"))
    assert (record.job_id, record.finisher_id, record.task) == (101, None, "functions")
    assert record.folder == str(script.parent)
    assert record.working_folder == os.getcwd()
    assert record.command == (
        "python -m jobs.submit conf=demo data.limit=4 slurm=cpu 'output=runs/a b' "
        "slurm.partition=main 'slurm.env=[MY_TOKEN]'"
    )
    assert slurm_config(record.slurm).partition == "main"
    assert yaml.safe_load(script.with_suffix(".yaml").read_text())["data"]["limit"] == 4
    files = [file for file in Path().rglob("*") if file.is_file()]
    assert not [file for file in files if "secret-value" in file.read_text()]

    said = capsys.readouterr().out.splitlines()
    assert said == [
        "demo-a_b: job 101, 1 node",
        "  watch   python -m pipeline.status 'runs/a b'",
        f"  logs    {script.parent}/logs/101*.log",
        "  cancel  python -m jobs.cancel 'runs/a b'",
    ]


def test_the_job_on_the_nodes_is_the_one_that_was_checked(slurm: FakeSlurm) -> None:
    Path("own").mkdir()
    Path("own/mine.yaml").write_text(
        "defaults:\n- override /model: demo\ndata:\n  path: ${packaged:jobs/demo/task/"
        "prompts.parquet}\n  limit: 2\n"
    )
    args = ("--config-dir=own", "conf=mine", "output=o=1 $x'", "prompt.template=a 'b',\n{prompt}")
    assert submitted(*args, "slurm=cpu") == 0
    text = Path(slurm.submitted()[0][-1]).read_text()
    words = text.partition(" --finish" if "--finish" in text else "supervise ")[2]
    command = f"printf '%s\\0' {words.partition(' -- ')[2]}"
    read = os.popen(f"bash <<'END'\n{command}\nEND").read().split("\0")[:-1]
    job = composed(*read)
    assert job == replace(composed(*args), output=str(Path("o=1 $x'").absolute()))


def test_an_array_has_a_job_behind_it(slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    assert submitted(*DEMO, "slurm.array=3") == 0
    array, behind = slurm.submitted()
    assert "--array=0-2" in array
    assert "--dependency=afterany:101" in behind
    assert "--hold" not in behind
    assert "supervise" in Path(behind[-1]).read_text()
    assert " --finish -- " in Path(behind[-1]).read_text()
    (record,) = submissions(RunFolder("runs/demo"))
    assert (record.job_id, record.array, record.finisher_id) == (101, 3, 102)
    assert "demo: job 101, 3 elements, 1 node; then job 102\n" in capsys.readouterr().out


def test_a_job_that_is_at_work_is_named_and_not_submitted_again(slurm: FakeSlurm) -> None:
    submitted(*DEMO)
    slurm.answer("squeue", queue(101, "RUNNING", "node[1-2]"))
    said = refused(*DEMO)
    assert "job 101 is running on node[1-2] since 2026-11-2" in said
    assert "python -m pipeline.status runs/demo" in said
    assert "python -m jobs.cancel runs/demo ends it" in said
    slurm.answer("squeue", queue(101, "PENDING", reason="Priority"))
    assert "job 101 is pending (Priority)" in refused(*DEMO)
    slurm.answer("squeue", queue(101, "RUNNING").replace(getuser(), "someone"))  # its id again
    assert submitted(*DEMO) == 0
    assert len(slurm.submitted()) == 2


def test_of_a_sweep_the_jobs_at_work_are_left_alone(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = (*DEMO, "-m", "seed=1,2", "slurm.nodes=1,2", "output=o")
    assert submitted(*sweep) == 0
    names = {f"seed={seed},slurm.nodes={nodes}" for seed in (1, 2) for nodes in (1, 2)}
    assert {file.name for file in Path("o").iterdir()} == names
    assert [nodes for words in slurm.submitted() for nodes in words if "--nodes" in nodes] == [
        *("--nodes=1", "--nodes=2", "--nodes=1", "--nodes=2")
    ]
    slurm.answer("squeue", queue(102, "RUNNING", "node1"))
    capsys.readouterr()
    assert submitted(*sweep) == 0
    assert len(slurm.submitted()) == 4 + 3
    said = capsys.readouterr()
    assert said.err.count("job 102 is running on node1") == 1
    assert said.out.count("watch") == 3


def test_nothing_is_left_of_a_job_that_slurm_does_not_release(slurm: FakeSlurm) -> None:
    slurm.refuse("scontrol", "Requested partition configuration not available now for job 101\n")
    said = refused(*DEMO, "slurm.nodes=99")
    assert said.startswith("slurm.nodes=99, ")
    assert slurm.calls("scancel") == [["101"]]
    (record,) = submissions(RunFolder("runs/demo"))
    assert record.cancelled_at is not None


@pytest.mark.parametrize(
    ("refusal", "args", "said"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "allocation failure: Invalid partition name specified",
            ("slurm.partition=nope",),
            "slurm.partition=nope: Slurm refuses the job (sbatch: invalid partition specified: "
            "nope; allocation failure: Invalid partition name specified); `sinfo -s` lists",
        ),
        (
            "allocation failure: Invalid account or account/partition combination specified",
            ("slurm.account=a",),
            "slurm.account=a: Slurm refuses the job",
        ),
        ("allocation failure: Invalid qos specification", ("slurm.qos=q",), "slurm.qos=q: "),
        (
            "sbatch: unrecognized option '--rubbish=1'\nTry \"sbatch --help\" for more information",
            ("slurm.extra=[--rubbish=1]",),
            "slurm.extra=['--rubbish=1']: Slurm refuses the job (sbatch: ",
        ),
        ("sbatch: error: Something new", (), "Slurm refuses the job (sbatch: Something new)"),
    ],
)
def test_what_slurm_refuses_is_told_with_its_field_and_nothing_is_made(
    slurm: FakeSlurm, refusal: str, args: tuple[str, ...], said: str
) -> None:
    slurm.refuse("test-only", refusal)
    assert said in refused(*DEMO, *args)
    assert not slurm.submitted()
    assert not Path("runs").exists()


def test_a_run_folder_that_no_other_machine_sees_is_told_once(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.slurm.checks._file_system", lambda _: "tmpfs")
    assert submitted(*DEMO) == 0
    assert capsys.readouterr().err.count("lies on tmpfs") == 1


def test_nodes_that_are_only_down_now_are_no_refusal(slurm: FakeSlurm) -> None:
    slurm.refuse("test-only", "allocation failure: Requested node configuration is not available")
    assert submitted(*DEMO, "slurm.nodes=2") == 0
    trial, job = slurm.submitted()
    assert trial[-1] == "--begin=now+1hour"
    assert slurm.calls("scancel") == [["101"]]
    assert "--hold" in job
    slurm.refuse("sbatch", "sbatch: error: Requested node configuration is not available")
    said = refused(*DEMO, "slurm.nodes=2", "output=o")
    assert "slurm.nodes=2, " in said
    assert not Path("o").exists()


def test_without_slurm_the_script_can_be_read_but_no_job_submitted(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoSlurm, match="sbatch: not found; submit where Slurm's commands are"):
        submitted(*DEMO)
    assert submitted(*DEMO, "slurm.dry_run=true", "slurm.array=2") == 0
    said = capsys.readouterr().out
    assert said.count("#!/bin/bash\n") == 2
    assert "#SBATCH --array=0-1\n" in said
    assert list(Path().iterdir()) == []


def test_the_printed_script_is_the_submitted_one(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(*DEMO, "slurm.dry_run=true")
    printed = capsys.readouterr().out
    assert not slurm.calls("sbatch")
    submitted(*DEMO)
    real = Path(slurm.submitted()[0][-1]).read_text()
    is_same = [line for line in printed.splitlines() if not line.startswith("# ")]
    assert is_same == [*(line for line in real.splitlines() if not line.startswith("# ")), ""]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("dry_run=true",), "slurm.dry_run=true prints the batch script"),
        (("slurm.signal_s=30",), "slurm.signal_s=30 with shutdown_grace_s=20: "),
        (("shutdown_grace_s=100",), "give slurm.signal_s=130 or more"),
        (("engine.tensor_parallel=2",), "engine.tensor_parallel=2 with a world size of 1"),
        (("slurm.array=2", "data.part_minutes=3"), "slurm.array=2 with data.part_minutes=3"),
        (("output=s3://b/x",), "output=s3://b/x: script and logs need a disk"),
        (("slurm.env=[NOT_SET_HERE]",), "slurm.env=NOT_SET_HERE: is not set in this shell"),
        (("slurm.extra=[--nodes=2]",), "--nodes is set by the submission"),
        (("slurm.after=soon",), "slurm.after=soon: give ids of jobs"),
        (("data.path=nix.parquet",), "data.path=nix.parquet"),
        (("model.path=./nix",), "model.path=./nix"),
        (("prompt.column=nix",), "prompt.column"),
    ],
)
def test_a_job_that_could_not_run_is_refused_before_anything_is_made(
    slurm: FakeSlurm, args: tuple[str, ...], said: str
) -> None:
    assert said in refused(*DEMO, *args)
    assert not slurm.submitted()
    assert list(Path().iterdir()) == []


def test_a_job_behind_one_that_slurm_does_not_know_is_refused(slurm: FakeSlurm) -> None:
    slurm.refuse("scontrol", "slurm_load_jobs error: Invalid job id specified")
    assert "slurm.after=7: Slurm knows no job 7" in refused(*DEMO, "slurm.after=7")


def test_a_run_folder_in_use_for_something_else_is_refused(slurm: FakeSlurm) -> None:
    Path("o").mkdir()
    Path("o/thesis.tex").touch()
    assert "it holds thesis.tex, but no run.json" in refused(*DEMO, "output=o")


def test_the_value_of_a_secret_gets_into_no_file(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    for word in ("slurm.setup=[export HF_TOKEN=hf_abcdefgh]", "prompt.system=hf_abcdefgh"):
        message = refused(*DEMO, word)
        assert "holds the value of HF_TOKEN" in message
        assert "slurm.env=[HF_TOKEN]" in message
        assert "hf_abcdefgh" not in message
    assert not slurm.submitted()
    assert list(Path().iterdir()) == []


def test_keys_that_the_job_would_lack_are_named(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    slurm.refuse("test-only", "enough")
    assert "enough" in refused(*DEMO, "data.path=s3://b/x.parquet")
    said = capsys.readouterr().err
    assert "AWS_ACCESS_KEY_ID: set here, but the job does not get it" in said
    assert "slurm.env=[AWS_ACCESS_KEY_ID]" in said


def test_a_finished_run_is_not_submitted_and_another_job_not_into_its_folder(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("conf=demo", "data.limit=2", "stand_in=true", "task=null")
    monkeypatch.setattr("sys.argv", ["pipeline.run", *args])
    launch(run)
    capsys.readouterr()
    assert submitted(*args, "slurm=cpu") == 0
    assert "runs/demo: is finished, nothing to submit" in capsys.readouterr().err
    assert "seed" in refused(*args, "slurm=cpu", "seed=5")
    assert not slurm.submitted()
    assert submitted(*args, "slurm=cpu", "retry_failed=true") == 0
    assert len(slurm.submitted()) == 1


def test_what_sbatch_prints() -> None:
    assert (parsed("12\n").job_id, parsed("12\n").cluster) == (12, None)
    assert (parsed("Welcome!\n12;big\n").job_id, parsed("12;big").cluster) == (12, "big")
    with pytest.raises(SlurmError, match="which is no job id"):
        parsed("Submitted batch job 12")
