"""The command line: the config that it composes, and the message if it is wrong."""

from pathlib import Path

import pytest

from engine.cache.block_causal import BlockCausalCache
from engine.cache.none import NoCache
from engine.decoding.edit import Edit
from engine.decoding.factor import Factor
from engine.decoding.fixed import Fixed
from pipeline.config.job import JobConfig
from pipeline.launch import SILENCE_S, options
from tests.launched import composed, jobs_of


class Launched:
    """Calls `launch` with a command line; returns the jobs that it would run."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *args: str) -> list[tuple[JobConfig, int]]:
        return jobs_of(*args)

    def one(self, *args: str) -> JobConfig:
        return composed(*args)

    def refused(self, *args: str) -> str:
        """The message for a wrong command line."""
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            self(*args)
        assert stop.value.code == 1
        said = self._capfd.readouterr().err
        assert said.count("pipeline.run stopped") == 1
        assert "Traceback" not in said
        return said


@pytest.fixture
def launched(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Launched:
    """In an empty folder, as the only worker."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    return Launched(capfd)


def test_ready_jobs_find_their_files_from_any_folder_and_write_nothing_there(
    launched: Launched, tmp_path: Path
) -> None:
    config = launched.one("conf=demo")
    assert isinstance(config.data.path, str)
    assert Path(config.data.path).is_file()
    assert Path(config.model.path).is_dir()
    assert (config.name, config.output, config.task) == ("demo", "runs/demo", "functions")
    assert list(tmp_path.iterdir()) == []


def test_groups_and_fields_are_overridden(launched: Launched) -> None:
    config = launched.one(
        *("conf=humaneval", "model=demo", "decoding=fixed", "cache=none", "engine=gpu"),
        *("decoding.iterations_per_block=8", "data.limit=3", "data.path=[a.parquet,b.jsonl]"),
    )
    assert config.model.path.endswith("jobs/demo/model")
    assert (config.decoding, config.cache) == (Fixed(iterations_per_block=8), NoCache())
    assert config.engine.max_sequences == 64
    assert (config.data.limit, config.data.path) == (3, ["a.parquet", "b.jsonl"])
    assert config.prompt.template is not None
    assert "```python\n{prompt}\n```" in config.prompt.template


def test_humaneval_is_ready_for_the_real_model(launched: Launched) -> None:
    config = launched.one("conf=humaneval")
    assert str(config.data.path).startswith("hf://datasets/openai/openai_humaneval/")
    assert config.model.path == "GSAI-ML/LLaDA-8B-Instruct"
    assert (config.generation.max_new_tokens, config.task) == (512, "humaneval")


@pytest.mark.parametrize("name", options("model"))
def test_every_model_makes_a_valid_job_whose_groups_can_still_be_chosen(
    launched: Launched, name: str
) -> None:
    config = launched.one("conf=humaneval", f"model={name}")
    is_causal = isinstance(config.cache, BlockCausalCache)
    assert is_causal == name.startswith(("demo_block", "llada2", "fast", "sdar"))
    assert config.model.dtype == ("float32" if name.startswith("demo") else "bfloat16")
    assert config.prompt.chat != name.endswith("_base")
    other = launched.one(
        *("conf=humaneval", f"model={name}", "engine=gpu", "cache=none", "decoding=factor"),
        *("engine.block_length=16", "decoding.factor=2", "model.revision=abc"),
    )
    assert (other.cache, other.decoding) == (NoCache(), Factor(factor=2.0))
    assert (other.engine.block_length, other.engine.max_sequences) == (16, 64)
    assert (other.model.path, other.model.revision) == (config.model.path, "abc")


def test_the_settings_of_the_models_are_those_of_their_papers(launched: Launched) -> None:
    lengths = {
        name: launched.one("conf=humaneval", f"model={name}", "engine=gpu").engine.block_length
        for name in options("model")
    }
    assert lengths["llada_8b"] == lengths["llada_1_5"] == lengths["dream"] == 32
    assert (lengths["llada_moe"], lengths["fast_dllm_v2"]) == (64, 8)
    assert lengths["llada2_flash"] is lengths["sdar_8b"] is None  # taken from the checkpoint
    edits = launched.one("conf=humaneval", "model=llada2_1_mini").decoding
    assert edits == Edit(threshold=0.7, edit_threshold=0.5)


def test_own_data_needs_no_ready_job(launched: Launched) -> None:
    config = launched.one("model=demo", "data.path=x.parquet", "output=out")
    assert (config.name, config.output) == (None, "out")
    assert "output is missing" in launched.refused("model=demo", "data.path=x.parquet")


def test_a_sweep_runs_all_jobs_in_turn(launched: Launched, tmp_path: Path) -> None:
    jobs = launched("-m", "conf=demo,humaneval")
    assert [(config.name, number) for config, number in jobs] == [("demo", 0), ("humaneval", 1)]
    assert [config.output for config, _ in jobs] == ["runs/demo", "runs/humaneval"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "listed"),
    [
        ([], ["conf=null", "conf=demo", "conf=humaneval", "data.path=FILE"]),
        (["conf=humanevl"], ["demo", "humaneval"]),
        (["conf=demo", "model=lada"], options("model")),
        (["conf=demo", "decoding=thresh"], ["fixed", "threshold"]),
        (["conf=demo", "modle=demo"], ["modle", "conf", "model", "data", "progress_every_s"]),
        (
            ["conf=demo", "data.limt=3"],
            ["data.limt", "path, where, limit, id_column, carry, part_rows"],
        ),
        (["conf=demo", "decoding.treshold=1"], ["decoding.treshold", "iterations_per_block"]),
        (["conf=demo", "+decoding.foo=1"], ["decoding.foo=1", "threshold"]),
        (["conf=demo", "+foo=1"], ["foo=1", "progress_every_s"]),
        (["conf=demo", "+engine.foo=1"], ["engine.foo=1", "cache_tokens"]),
        (["conf=demo", "data.limit=many"], ["data.limit='many'", "a whole number or null"]),
        (["conf=demo", "seed=1.5"], ["seed=1.5", "a whole number"]),
    ],
    ids=" ".join,
)
def test_an_unknown_name_is_refused_with_the_names_that_exist(
    launched: Launched, args: list[str], listed: list[str]
) -> None:
    said = launched.refused(*args)
    for name in listed:
        assert name in said


@pytest.mark.parametrize("args", [["--help"], ["conf=demo", "--cfg", "job"]], ids=" ".join)
def test_only_rank_0_shows_help_and_config(
    launched: Launched,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    args: list[str],
) -> None:
    assert launched(*args) == []
    assert "max_new_tokens: 128" in capfd.readouterr().out
    monkeypatch.setenv("RANK", "1")
    assert launched(*args) == []
    assert capfd.readouterr() == ("", "")


def test_other_ranks_hold_their_message_back(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("time.sleep", waits.append)
    launched.refused("conf=nothing")
    assert waits == [SILENCE_S]
