"""The command line of jobs.submit: a job's settings, and beside them those of Slurm."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import UserError
from pipeline.launch import options
from pipeline.launch.arguments import read_arguments
from pipeline.launch.to_submit import to_submit
from tests.launched import composed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without clusters, and a working folder of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cluster(folder: Path, name: str, text: str) -> Path:
    file = folder / "slurm" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_job_with_its_place_on_the_cluster(home: Path) -> None:
    (job,) = to_submit(["conf=demo", "slurm=h100x8", "slurm.nodes=2", "data.limit=4"])
    assert (job.slurm.gpus_per_node, job.slurm.nodes, job.slurm.ranks) == (8, 2, 8)
    assert job.config.data.limit == 4
    # What the nodes are told gives the same job, and nothing of Slurm.
    output = str(home / "runs" / "demo")
    assert composed(*job.arguments) == replace(job.config, output=output)


def test_values_that_hydra_would_misread_survive(home: Path) -> None:
    args = ["conf=demo", "slurm=cpu", "data.where=prompt != 'a, b' AND 1 = 1", "output=my runs/ä"]
    args.append("prompt.template=One {prompt}\n\n'two' $x")
    (job,) = to_submit(args)
    output = str(home / "my runs" / "ä")
    assert composed(*job.arguments) == replace(job.config, output=output)
    assert job.config.prompt.template == "One {prompt}\n\n'two' $x"


def test_sweeps_over_settings_of_the_job_and_of_slurm(home: Path) -> None:
    jobs = to_submit(["-m", "conf=demo", "slurm=cpu", "seed=1,2", "slurm.nodes=1,2"])
    assert [(job.config.seed, job.slurm.nodes) for job in jobs] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    made = [composed(*job.arguments) for job in jobs]
    assert made[1].output == str(home / "runs" / "demo" / "seed=1,slurm.nodes=2")
    assert len({its.output for its in made}) == 4
    assert [its.seed for its in made] == [1, 1, 2, 2]


def test_lists_of_text_are_taken_as_they_are_typed(home: Path) -> None:
    words = ["slurm.extra=[--reservation=maintenance, '--comment=a, b']", "slurm.env=[HF_TOKEN]"]
    (job,) = to_submit(["conf=demo", "slurm=cpu", *words, "slurm.setup=[module load x/1.2]"])
    assert job.slurm.extra == ["--reservation=maintenance", "--comment=a, b"]
    assert (job.slurm.env, job.slurm.setup) == (["HF_TOKEN"], ["module load x/1.2"])


def test_a_cluster_of_the_users_own(home: Path) -> None:
    cluster(home / "config" / "dllm-pipeline", "mine", "partition: gpu\nsetup: [module load cuda]")
    cluster(home / "team", "theirs", "defaults: [h100x8]\npartition: big")
    (job,) = to_submit(["conf=demo", "slurm=mine", "slurm.time=1:00:00"])
    assert (job.slurm.partition, job.slurm.setup) == ("gpu", ["module load cuda"])
    assert job.slurm.time == "1:00:00"
    (job,) = to_submit(["--config-dir=team", "conf=demo", "slurm=theirs"])
    assert (job.slurm.partition, job.slurm.gpus_per_node) == ("big", 8)
    assert f"--config-dir={home / 'team'}" in job.arguments
    with pytest.raises(UserError, match=r"slurm=theris: no such option.*slurm=theirs"):
        to_submit(["--config-dir=team", "conf=demo", "slurm=theris"])


@pytest.mark.parametrize(
    ("text", "named", "message"),
    [
        ("gpuz: 4", "wrong", "wrong.yaml: slurm.gpuz=4: no such field; slurm has partition"),
        ("partition: x", "cpu", "has this name; give the file another"),
        ("- partition", "list", "list.yaml: give fields, such as"),
    ],
)
def test_a_faulty_file_is_named(home: Path, text: str, named: str, message: str) -> None:
    cluster(home / "config" / "dllm-pipeline", named, text)
    with pytest.raises(UserError, match=message):
        to_submit(["conf=demo", f"slurm={named}"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "slurm is missing: say where .* slurm=a100x8"),
        (["slurm=h100x9"], "slurm=h100x9: no such option; did you mean slurm=h100x8"),
        (["slurm=cpu", "slurm.nodse=2"], "did you mean slurm.nodes=2"),
        (["slurm.gpus_per_node=8", "gpus=8"], "gpus=8: no such field; .*slurm.gpus_per_node=8"),
        (["slurm=cpu", "slurm.nodes=0"], "slurm.nodes=0: give at least 1"),
        (["slurm=cpu", "slurm.nodes=two"], "slurm.nodes='two': give a whole number"),
        (["slurm=cpu", "slurm.time=soon"], "slurm.time=soon: give 24:00:00"),
        (["slurm=cpu", "slurm.memory=lots"], "slurm.memory=lots: give 400G"),
        (["slurm=cpu", "slurm.env=[A=1]"], "slurm.env=A=1: give the name of a variable"),
        (["slurm=cpu", "slurm.env=HF_TOKEN"], "slurm.env='HF_TOKEN': give a list or null"),
        (["slurm=cpu", "slurm.array_at_once=2"], "only with slurm.array"),
        (["slurm=cpu", "slurm.cpus_per_gpu=2"], "give cpus_per_node alone"),
        (["slurm=cpu", "slurm.container_runtime=docker"], "give pyxis or apptainer"),
        (["slurm=cpu", "generation.temperature=-1"], "generation.temperature=-1"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_message(args: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_submit(["conf=demo", *args])


def test_pipeline_run_says_whose_the_settings_of_slurm_are() -> None:
    for word in ("slurm=cpu", "slurm.nodes=2"):
        with pytest.raises(UserError, match=f"{word}: says where Slurm runs a job, for python -m"):
            read_arguments(["conf=demo", word])


@pytest.mark.parametrize("name", options("slurm"))
def test_the_clusters_that_come_with_the_package_can_be_chosen(name: str) -> None:
    """Unlike the other groups they list only what they set: the fields have the defaults of
    SlurmConfig."""
    (job,) = to_submit(["conf=demo", f"slurm={name}"])
    assert job.slurm.ranks == (8 if name.endswith("x8") else 1)


def test_help_and_cfg_show_slurm(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "--cfg=job"):
        with suppress(SystemExit):
            to_submit([flag, "conf=demo", "slurm=cpu", "slurm.ranks_per_node=7"])
        said = capsys.readouterr().out
        assert "ranks_per_node: 7" in said
    assert "partition: null" in said
