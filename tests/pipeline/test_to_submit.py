"""The command line of jobs.submit: all of pipeline.run's, and where Slurm runs the job."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from engine.errors import UserError
from engine.model.defaults import conf_folder
from pipeline.config.fields import slurm_fields
from pipeline.config.slurm import SlurmConfig
from pipeline.launch import options
from pipeline.launch.foreign import SLURM_FOREIGN
from pipeline.launch.to_submit import Submittable, to_submit
from tests.launched import composed, jobs_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own clusters; the working folder is empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "dllm-pipeline" / "slurm"
    folder.mkdir(parents=True)
    return folder


def one(*args: str) -> Submittable:
    (job,) = to_submit(args)
    return job


def refused(*args: str) -> str:
    with pytest.raises(UserError) as error:
        to_submit(args)
    return str(error.value)


def test_slurm_has_its_own_section_and_the_job_none_of_it() -> None:
    job = one(
        *("conf=demo", "slurm=h100x8", "slurm.nodes=2", "slurm.time=24:00:00", "seed=3"),
        *("slurm.setup=[module load cuda/12.8, source 'x y'/activate]", "slurm.account=0123"),
    )
    assert job.slurm == SlurmConfig(
        nodes=2,
        gpus_per_node=8,
        gpu_type="h100",
        memory="0",
        time="24:00:00",
        account="0123",
        setup=["module load cuda/12.8", "source 'x y'/activate"],
    )
    assert job.config == composed("conf=demo", "seed=3")
    assert job.arguments == ["conf=demo", "seed=3", f"output={Path('runs/demo').absolute()}"]


def test_values_that_hydra_would_misread_reach_the_nodes() -> None:
    text = "One {prompt}\n\n'two' $x"
    where = "data.where=prompt != 'a, b' AND 1 = 1"
    job = one("conf=demo", "slurm=cpu", where, "output=my runs/ä", f"prompt.template={text}")
    output = str(Path("my runs/ä").absolute())
    assert composed(*job.arguments) == replace(job.config, output=output)
    assert job.config.prompt.template == text


def test_lists_of_text_are_taken_as_they_are_typed() -> None:
    words = ["slurm.extra=[--reservation=maintenance, '--comment=a, b']", "slurm.env=[HF_TOKEN]"]
    job = one("conf=demo", "slurm=cpu", *words, "slurm.setup=[module load x/1.2]")
    assert job.slurm.extra == ["--reservation=maintenance", "--comment=a, b"]
    assert (job.slurm.env, job.slurm.setup) == (["HF_TOKEN"], ["module load x/1.2"])
    assert "slurm.env=" in refused("conf=demo", "slurm=cpu", "slurm.env=HF_TOKEN")


@pytest.mark.parametrize("name", options("slurm"))
def test_every_option_is_valid_and_says_the_gpus_of_a_node(name: str) -> None:
    slurm = one("conf=demo", f"slurm={name}").slurm
    _, _, number = name.partition("x")
    assert slurm.gpus_per_node == int(number or 0)
    text = (conf_folder() / "slurm" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert {f"slurm.{key}" for key in yaml.safe_load(text)} <= set(slurm_fields())


def test_without_a_word_about_slurm_nothing_is_guessed() -> None:
    said = refused("conf=demo")
    assert "slurm is missing: say where the job is to run: slurm=a100x8, slurm=cpu" in said
    assert "slurm is missing" in refused("conf=demo", "slurm.dry_run=true")
    assert one("conf=demo", "slurm.partition=gpu").slurm == SlurmConfig(partition="gpu")


def test_a_sweep_over_jobs_and_over_slurm_has_a_folder_for_each() -> None:
    jobs = to_submit(["-m", "conf=demo", "slurm=cpu", "seed=1,2", "slurm.nodes=1,2"])
    assert [(job.config.seed, job.slurm.nodes) for job in jobs] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [job.config.output for job in jobs] == [
        f"runs/demo/seed={seed},slurm.nodes={nodes}" for seed in (1, 2) for nodes in (1, 2)
    ]
    for job in jobs:
        again = composed(*job.arguments)
        assert again.seed == job.config.seed
        assert again.output == str(Path(job.config.output).absolute())
    names = [its.slurm.gpus_per_node for its in to_submit(["-m", "conf=demo", "slurm=cpu,h100x8"])]
    assert names == [0, 8]


@pytest.mark.parametrize("output", ["a b", "it's", "o=1,2", r"\${x}", "~/runs/x"])
def test_the_output_reaches_the_nodes_as_an_absolute_path(output: str) -> None:
    job = one("conf=demo", "slurm=cpu", f"output={output}")
    assert composed(*job.arguments).output == str(Path(job.config.output).absolute())


def test_the_folder_of_ones_own_files_goes_on_as_an_absolute_path() -> None:
    Path("own/slurm").mkdir(parents=True)
    Path("own/mine.yaml").write_text("data:\n  limit: 2\n")
    Path("own/slurm/here.yaml").write_text("partition: gpu\ngpus_per_node: 4\n")
    job = one("--config-dir=own", "conf=mine", "model=demo", "data.path=x.parquet", "slurm=here")
    assert (job.slurm.partition, job.slurm.gpus_per_node) == ("gpu", 4)
    assert job.arguments[-1] == f"--config-dir={Path('own').absolute()}"
    assert composed(*job.arguments).data.limit == 2


def test_a_cluster_of_ones_own_needs_no_flag(home: Path) -> None:
    (home / "uni.yaml").write_text(
        'defaults: [h100x8, _self_]\npartition: gpu\ntime: "4:00:00"\nenv: [HF_TOKEN]\n'
    )
    slurm = one("conf=demo", "slurm=uni", "slurm.nodes=2").slurm
    assert (slurm.partition, slurm.gpus_per_node, slurm.time) == ("gpu", 8, "4:00:00")
    assert (slurm.env, slurm.nodes) == (["HF_TOKEN"], 2)
    said = refused("conf=demo", "slurm=unj")
    assert f"did you mean slurm=uni? conf/ and {home} has a100x8, cpu" in said
    assert "slurm=uni" in refused("conf=demo")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partitoin: gpu\n", "slurm.partitoin=gpu: no such field; did you mean slurm.partition"),
        ("mem: 4G\n", "did you mean slurm.memory=4G?"),
        ("time: 24:00:00\n", 'time: is read as 86400; put it in quotes, time: "..."'),
        ("account: 0123\n", "account: is read as 83; put it in quotes"),
        ("# @package _global_\nslurm:\n  nodes: 2\n", "slurm.slurm={'nodes': 2}: no such field"),
        ("engine:\n  graphs: false\n", "no such field"),
        ("- gpu\n", "give fields, such as partition: gpu"),
        ("partition: [\n", "is not YAML"),
    ],
)
def test_a_fault_in_a_cluster_of_ones_own_names_file_and_field(
    home: Path, text: str, said: str
) -> None:
    (home / "uni.yaml").write_text(text)
    message = refused("conf=demo", "slurm=uni")
    assert message.startswith(f"{home / 'uni.yaml'}: ")
    assert said in message
    Path("own/slurm").mkdir(parents=True)
    (home / "uni.yaml").rename("own/slurm/uni.yaml")
    message = refused("--config-dir=own", "conf=demo", "slurm=uni")
    assert message.startswith(f"{Path('own/slurm/uni.yaml').absolute()}: ")
    assert said in message


def test_a_cluster_of_ones_own_has_a_name_of_its_own(home: Path) -> None:
    (home / "cpu.yaml").write_text("nodes: 2\n")
    assert "cpu.yaml has this name; give the file another" in refused("conf=demo", "slurm=cpu")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gpus=8", "slurm.gpus_per_node=8"),
        ("gres=gpu:8", "slurm.gpus_per_node=gpu:8"),
        ("slurm.ntasks=2", "slurm.ranks_per_node=2"),
        ("mem=64G", "slurm.memory=64G"),
        ("slurm.cpus-per-task=4", "slurm.cpus_per_gpu=4 or slurm.cpus_per_node=4"),
        ("time_limit=60", "slurm.time=60"),
        ("timeout_min=60", "slurm.time=60"),
        ("partition=gpu", "slurm.partition=gpu"),
        ("slurm.node=2", "slurm.nodes=2"),
        ("hydra/launcher=slurm", None),
    ],
)
def test_other_tools_names_lead_to_ours(typed: str, meant: str | None) -> None:
    said = refused("conf=demo", "slurm=cpu", typed)
    assert f"{typed}: " in said
    if meant is not None:
        assert f"no such field; did you mean {meant}?" in said
    assert "write slurm.partition=x" in refused("conf=demo", "--partition=x")


def test_every_name_of_another_tool_leads_to_a_field() -> None:
    assert set(SLURM_FOREIGN) <= {*slurm_fields(), "slurm"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("slurm.nodes=x", "slurm.nodes='x': give a whole number"),
        ("slurm.nodes=0", "slurm.nodes=0: give at least 1"),
        ("slurm.nodes=1,2", "several values need -m"),
        ("slurm.time=soon", "slurm.time=soon: give 24:00:00"),
        ("slurm.env=[A=b]", "give the name of a variable"),
        ("slurm.env=A,B", "several values are a list, slurm.env=[A,B]"),
        ("slurm.env=A", "slurm.env='A': give a list or null"),
        ("slurm.foo=1", "slurm.foo=1: no such field; slurm has partition, account"),
        ("slurm={nope:1}", "slurm={nope:1}: give the name of an option"),
    ],
)
def test_a_wrong_value_is_told_with_its_field(typed: str, said: str) -> None:
    assert said in refused("conf=demo", "slurm=cpu" if "{" not in typed else "seed=1", typed)


@pytest.mark.parametrize("typed", ["slurm=h100x8", "slurm.nodes=2", "slurm.nope=2"])
def test_pipeline_run_says_that_slurm_is_for_jobs_submit(
    typed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        jobs_of("conf=demo", typed)
    said = capfd.readouterr().err
    assert f"{typed}: says where Slurm runs a job, for python -m jobs.submit" in said


def test_help_and_cfg_show_the_section(capfd: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "uni.yaml").write_text("partition: gpu\n")
    assert to_submit(["--cfg", "job", "conf=demo", "slurm=uni"]) == []
    shown = yaml.safe_load(capfd.readouterr().out)
    assert shown["slurm"]["partition"] == "gpu"
    assert shown["data"]["path"].startswith("${packaged:")
    with pytest.raises(SystemExit) as stop:
        to_submit(["--help"])
    assert not stop.value.code
    said = capfd.readouterr().out
    assert said.startswith("python -m jobs.submit conf=NAME slurm=NAME")
    assert re.search(r"^slurm: a100x8, cpu, h100x1, h100x8, uni$", said, re.MULTILINE)
    assert "max_requeues: 100" in said
