"""The ready jobs of the benchmarks, from their published rows to their scores."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from engine.model.defaults import PACKAGES, conf_folder
from pipeline.config.job import JobConfig
from pipeline.run import run
from pipeline.score import main, score_run
from pipeline.tasks import TASKS
from pipeline.tasks.base import Task
from tests.launched import composed
from tests.pipeline.tasks.published_rows import PUBLISHED

JOBS = [name for name in PUBLISHED if "," not in name]
DEMO = PACKAGES / "jobs/demo/model"
SETTINGS = sorted((conf_folder() / "settings").glob("*.yaml"))


def rows_file(folder: Path, name: str) -> Path:
    file = folder / f"{name.replace(', ', '_')}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PUBLISHED[name].rows))
    return file


@pytest.mark.parametrize("name", JOBS)
def test_a_ready_job_reads_the_hub_at_one_revision_or_a_local_copy(name: str) -> None:
    config = composed(f"conf={name}")
    assert isinstance(config.data.path, str)
    repository, _, rest = config.data.path.removeprefix("hf://datasets/").partition("@")
    assert repository.count("/") == 1
    assert len(rest.partition("/")[0]) == 40, "a commit, so that the rows stay the same"
    assert (config.task, config.output) == (name, f"runs/{name}")
    assert composed(f"conf={name}", "data.path=mine.jsonl").data.path == "mine.jsonl"


@pytest.fixture
def roomy(tmp_path: Path) -> str:
    """The demo's tokenizer, of which a token is a few characters, and a context for long prompts.
    Its weights do not fit to that: no test runs the model."""
    folder = shutil.copytree(DEMO, tmp_path / "roomy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_sequence_length": 8192}))
    return f"model.path={folder}"


def its_rows(name: str) -> list[str]:
    """What a job of these rows adds to conf=NAME."""
    return ["data.rename=null"] if "sanitized" in name else []


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_ready_job_dry_runs_on_published_rows(
    tmp_path: Path, roomy: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    args = [f"conf={name.partition(',')[0]}", roomy, f"data.path={rows_file(tmp_path, name)}"]
    args += ["dry_run=true", "prompt.system=null", f"output={tmp_path / 'run'}", *its_rows(name)]
    run(composed(*args), 0)
    said = capfd.readouterr().out
    assert f"1 files, {len(PUBLISHED[name].rows)} rows taken" in said
    assert " 0 of them failed" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "ifeval"])
def test_a_ready_job_can_be_scored(tmp_path: Path, roomy: str, name: str) -> None:
    """What scoring reads of the published rows reaches the output."""
    task = name.partition(",")[0]
    args = [f"conf={task}", roomy, f"data.path={rows_file(tmp_path, name)}", "stand_in=true"]
    args += ["generation.max_new_tokens=8", "prompt.system=null", *its_rows(name)]
    run(composed(*args, f"output={tmp_path / 'run'}"), 0)
    scores = score_run(str(tmp_path / "run"))
    assert (scores.task, scores.num_rows) == (task, len(PUBLISHED[name].rows))
    assert scores.pass_at == {1: 0.0}
    assert not any("no generation" in reason or "no test" in reason for reason in scores.reasons)


@pytest.mark.parametrize(
    ("file", "job", "model"),
    [
        (file, job, model)
        for file in SETTINGS
        for job, models in yaml.safe_load(file.read_text()).items()
        if job != "all"
        for model in models
    ],
    ids=lambda its: its.stem if isinstance(its, Path) else its,
)
def test_named_settings_are_what_their_file_says(file: Path, job: str, model: str) -> None:
    table = yaml.safe_load(file.read_text())
    config = composed(f"conf={job}", f"model={model}", f"settings={file.stem}")
    assert config.settings == file.stem
    for name, value in (table["all"] | table[job][model]).items():
        section, _, field = name.partition(".")
        if field:
            its = getattr(config, section)
            for part in field.split("."):
                its = getattr(its, part)
            assert its == value, name
    assert config.engine.block_length is not None
    assert config.generation.max_new_tokens % config.engine.block_length == 0


def test_llada_published_is_llada_s_own_loop() -> None:
    def of(*args: str) -> JobConfig:
        return composed("conf=humaneval", "settings=llada_published", *args)

    config = of()
    assert (type(config.decoding).__name__, type(config.cache).__name__) == ("Fixed", "NoCache")
    assert (config.engine.block_length, config.decoding.suppress_eos) == (512, "logits")
    assert of("model=llada_1_5").engine.block_length == 32


def test_the_command_line_comes_before_named_settings() -> None:
    args = ["conf=humaneval", "settings=llada_published", "decoding=factor"]
    config = composed(*args, "engine.block_length=64")
    assert type(config.decoding).__name__ == "Factor"
    assert (config.engine.block_length, config.generation.max_new_tokens) == (64, 512)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["conf=gsm8k", "settings=nonsense"], "has dinfer, dream_published, llada_published"),
        (
            ["conf=gsm8k", "model=dream", "settings=llada_published"],
            "settings=llada_published: has nothing for conf=gsm8k with model=dream; it has",
        ),
        (["model=dream", "data.path=x", "settings=dinfer", "output=y"], "nothing for conf=None"),
    ],
)
def test_settings_that_are_not_there_are_refused(
    args: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        composed(*args)
    assert told in capfd.readouterr().err


def test_what_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = Task(columns=(), verdict=TASKS["gsm8k"].verdict, modules=("not_there",), extra="math")
    monkeypatch.setitem(TASKS, "lacking", lacking)
    args = [f"data.path={rows_file(tmp_path, 'gsm8k')}", "model=demo", "stand_in=true"]
    args += ["prompt.column=question", "generation.max_new_tokens=8"]
    run(composed(*args, f"output={tmp_path / 'run'}"), 0)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "run"), "--task", "lacking"])
    assert "task='lacking': needs not_there, not installed here; pip install" in str(stop.value)
    assert '"dllm-pipeline[math]"' in str(stop.value)
