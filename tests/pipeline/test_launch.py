"""The command line: the config that it composes, and the message if it is wrong."""

import re
from pathlib import Path

import pytest

from engine.cache.block_causal import BlockCausalCache
from engine.cache.none import NoCache
from engine.decoding.edit import Edit
from engine.decoding.factor import Factor
from engine.decoding.fixed import Fixed
from engine.decoding.threshold import Threshold
from pipeline.config.job import JobConfig
from pipeline.launch import SILENCE_S, options
from tests.checkpoints import write_checkpoint
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
    assert config.prompt.format == "humaneval_instruct"


def test_humaneval_is_ready_for_the_real_model(launched: Launched) -> None:
    config = launched.one("conf=humaneval")
    assert str(config.data.path).startswith("hf://datasets/openai/openai_humaneval@")
    assert config.model.path == "GSAI-ML/LLaDA-8B-Instruct"
    assert (config.generation.max_new_tokens, config.task) == (512, "humaneval")


BLOCK_CAUSAL = (
    *("demo_block", "llada2", "fast", "sdar", "trado"),
    *("stable_diffcoder", "dream_reasoner"),
)


@pytest.mark.parametrize("name", options("model"))
def test_every_model_makes_a_valid_job_whose_groups_can_still_be_chosen(
    launched: Launched, name: str
) -> None:
    config = launched.one("conf=humaneval", f"model={name}")
    is_causal = isinstance(config.cache, BlockCausalCache)
    assert is_causal == name.startswith(BLOCK_CAUSAL)
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


DATA = ("model=demo", "output=out")


@pytest.mark.parametrize(
    "text",
    [
        *("date=2026-01-01/in.jsonl", "data (1)/in.jsonl", "données/問.jsonl", "a#b.jsonl"),
        *("in~1.jsonl", "{a}.jsonl", "it's.jsonl", "[0-9]*.jsonl", "x&y;z!.jsonl", "2024", "1e3"),
        *("true", "a'b\"c", "back\\slash.jsonl", "a b/*.parquet", "a:b|c<d>e^f`g"),
    ],
)
def test_text_is_taken_as_it_is_typed(launched: Launched, text: str) -> None:
    config = launched.one("model=demo", f"data.path={text}", f"output=out/{text}")
    assert (config.data.path, config.output) == (text, f"out/{text}")
    assert launched.one(*DATA, f"data.path=[{text},b]").data.path == [text, "b"]


@pytest.mark.parametrize(
    "text",
    [
        *("length(question) < 4000 AND lang = 'py'", "prompt = 'def f(x):'", "abs(n) > 3"),
        *("x IN ('a', 'b')", "'py' = lang", "sort(a, b)", "a, b", "{prompt}", "Q: {prompt}\n\nA:"),
        *("Don't explain (code only).", "[INST] hi", "{a: 1}", "# heading", "007", "1.50", "a $ b"),
        *("'a' or 'b'", '"a" or "b"', "größer", "日本", "str(1)", "a\tb", "50% = 1/2"),
    ],
)
def test_a_condition_or_a_prompt_is_taken_as_it_is_typed(launched: Launched, text: str) -> None:
    config = launched.one(*DATA, "data.path=a", f"data.where={text}", f"prompt.system={text}")
    assert (config.data.where, config.prompt.system) == (text, text)


def test_what_hydras_grammar_reads_as_text_stays_so(launched: Launched) -> None:
    quoted = launched.one(
        *(
            *DATA,
            "data.path=['a (1)','b,c',d]",
            "data.where=\"lang = 'py'\"",
            "prompt.system='a b'",
        ),
        *("data.id_column=null", "data.carry=[a,b]", "+data.limit=3", "++seed=4"),
    )
    assert quoted.data.path == ["a (1)", "b,c", "d"]
    path = "data.path=['a, (1)', s3://b/c (1), \"d,e\" ,2024]"
    assert launched.one(*DATA, path).data.path == ["a, (1)", "s3://b/c (1)", "d,e", "2024"]
    assert (quoted.data.where, quoted.prompt.system) == ("lang = 'py'", "a b")
    assert (quoted.data.id_column, quoted.data.carry) == (None, ["a", "b"])
    assert (quoted.data.limit, quoted.seed) == (3, 4)
    template = launched.one(*DATA, "data.path=a", "prompt.template='{context}\n\n{prompt}'")
    assert template.prompt.template == "{context}\n\n{prompt}"
    other = launched.one(*DATA, "data.path=x (1)", "output=${data.path}/${decoding.name}")
    assert other.output == "x (1)/threshold"
    assert launched.one(*DATA, "data.path=a", r"prompt.system=\${x}").prompt.system == "${x}"


def test_with_m_commas_separate_values_which_may_be_quoted(launched: Launched) -> None:
    jobs = launched("-m", "model=demo", "data.path=a", "output=o", "data.where='n = 1','n = 2'")
    assert [config.data.where for config, _ in jobs] == ["n = 1", "n = 2"]
    jobs = launched("-m", "model=demo", "data.path=a", "output=o", "data.where=n = 1", "seed=1,2")
    assert [config.data.where for config, _ in jobs] == ["n = 1"] * 2
    said = launched.refused("-m", "model=demo", "data.path=a (1),b", "output=o")
    assert "put each of them in quotes" in said


def test_a_tilde_is_the_home_folder_in_paths_alone(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = launched.one("model=demo", "data.path=[~/a,b]", "output=~/out", "prompt.system=~/x")
    assert (config.data.path, config.output) == (["/home/me/a", "b"], "/home/me/out")
    assert config.prompt.system == "~/x"
    assert launched.one(*DATA, "data.path=~/a b").data.path == "/home/me/a b"


def test_several_paths_without_brackets_are_refused_unless_that_is_a_files_name(
    launched: Launched, tmp_path: Path
) -> None:
    said = launched.refused(*DATA, "data.path=a.parquet,b.parquet")
    assert "data.path=[a.parquet,b.parquet]" in said
    (tmp_path / "a,b.jsonl").touch()
    assert launched.one(*DATA, "data.path=a,b.jsonl").data.path == "a,b.jsonl"


@pytest.mark.parametrize(
    ("arg", "told"),
    [
        ("tensor_parallel_size=2", "did you mean engine.tensor_parallel=2?"),
        ("engine.tensor_parallel_size=2", "did you mean engine.tensor_parallel=2?"),
        ("temperature=0.7", "did you mean generation.temperature=0.7?"),
        ("max_tokens=9", "did you mean generation.max_new_tokens=9?"),
        ("max_new_tokens=9", "did you mean generation.max_new_tokens=9?"),
        ("batch_size=9", "did you mean engine.max_sequences=9?"),
        ("threshold=0.5", "did you mean decoding.threshold=0.5?"),
        ("model_path=x", "did you mean model.path=x?"),
        ("input=x", "did you mean data.path=x?"),
        ("output_dir=x", "did you mean output=x?"),
        ("gpu_memory_utilization=0.9", "did you mean engine.memory_fraction=0.9?"),
        ("remasking=low_confidence", "did you mean decoding=NAME?"),
        ("sampling.temperatur=1", "did you mean generation.temperature=1?"),
        ("data.pth=x", "did you mean data.path=x?"),
        ("Seed=3", "did you mean seed=3?"),
        ("num_gpus=8", "torchrun --nproc-per-node=N starts N workers"),
        ("min_p=0.9", "there is no such setting"),
        ("top_p=0.9", "did you mean generation.top_p=0.9?"),
        ("max_model_len=4096", "did you mean model.max_positions=4096?"),
        ("--tensor-parallel-size=8", "write engine.tensor_parallel=8"),
        ("--temperature", "write generation.temperature=VALUE"),
        ("--nonsense", "--cfg job"),
        ("demo", "perhaps conf=demo"),
        ("~data.where", "write data.where=null"),
        ("data=demo", "data=demo: give its fields, as data.FIELD=VALUE; data has path, "),
        (
            "generation=5",
            "generation=5: give its fields, as generation.FIELD=VALUE; ",
        ),
        ("model=null", "model=null: give the name of an option"),
        ("cache={name:none}", "cache={name:none}: give the name of an option"),
        ("decoding=[fixed,factor]", "decoding=[fixed,factor]: give the name of an option"),
        ("data.limit=3=4", "data.limit=3=4: give a whole number or null"),
        ("decoding=fixed,factor", "several values need -m"),
        ("hydra.verbose=true", "leave this out"),
        ("prompt.system=${nope}", "prompt.system=${nope}: Interpolation key 'nope' not found."),
        ("prompt.system=a ${ b", r"for the characters themselves write \${"),
        ("prompt.system=${}", r"for the characters themselves write \${"),
        ("--config-name=demo", "--config-name=demo: means conf=demo; give one of them"),
        ("--config-path=x", "--config-path: not read here"),
        ("--config-dir=/no/such", "--config-dir=/no/such: no such folder"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_with_what_to_type(
    launched: Launched, arg: str, told: str
) -> None:
    assert told in launched.refused("conf=demo", arg)


def test_flags_that_show_a_job_take_no_sweep(launched: Launched) -> None:
    said = launched.refused("-m", "--cfg=job", "conf=demo", "seed=1,2")
    assert "these show one job" in said


class TestModel:
    """The demo runs nothing unless it is asked for."""

    def test_a_job_without_a_model_is_refused_with_the_names_that_there_are(
        self, launched: Launched
    ) -> None:
        for args in (["dry_run=true"], []):
            said = launched.refused("data.path=x", "output=y", *args)
            assert "model is missing" in said
            assert all(f"model={name}" in said for name in options("model"))

    def test_only_a_stand_in_needs_none(
        self, launched: Launched, capfd: pytest.CaptureFixture[str]
    ) -> None:
        config = launched.one("data.path=x", "output=y", "stand_in=true")
        assert config.model.path.endswith("jobs/demo/model")
        said = capfd.readouterr().err
        assert f"no model is run; tokenizer of {config.model.path}\n" in said

    @pytest.mark.parametrize(
        ("path", "option"),
        [
            ("GSAI-ML/LLaDA-8B-Base", "llada_8b_base"),
            ("/somewhere/LLaDA2.1-mini", "llada2_1_mini"),
            ("/cache/models--Dream-org--Dream-v0-Base-7B/snapshots/0a1b2c", "dream_base"),
        ],
    )
    @pytest.mark.parametrize(
        "job", [["data.path=x", "output=y"], ["conf=humaneval"], ["conf=demo"]]
    )
    def test_a_published_checkpoint_takes_its_own_settings(
        self,
        launched: Launched,
        capfd: pytest.CaptureFixture[str],
        job: list[str],
        path: str,
        option: str,
    ) -> None:
        config = launched.one(*job, f"model.path={path}")
        assert f"model.path={path}: settings of model={option}: " in capfd.readouterr().err
        named = launched.one(*job, f"model={option}", f"model.path={path}")
        assert capfd.readouterr().err == ""
        assert config == named

    def test_any_other_takes_those_of_the_family_in_its_config_json(
        self, launched: Launched, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_checkpoint(tmp_path / "tuned (é)")
        args = ("data.path=x", "output=y", f"model.path={folder}")
        assert launched.one(*args) == launched.one(*args, "model=llada_8b")
        assert "dtype bfloat16, decoding=threshold, cache=dual, block length 32" in (
            capfd.readouterr().err
        )
        own = launched.one(*args, "cache=none", "decoding=factor", "engine.block_length=8")
        assert (own.cache, own.decoding) == (NoCache(), Factor())
        assert (own.engine.block_length, own.model.dtype) == (8, "bfloat16")
        assert "decoding=factor, cache=none, block length 8" in capfd.readouterr().err
        assert launched("--cfg", "job", *args) == []
        assert "dtype: bfloat16" in capfd.readouterr().out
        jobs = launched("-m", *args[:2], f"model.path='{folder}',GSAI-ML/LLaDA-8B-Base")
        assert [config.prompt.chat for config, _ in jobs] == [True, False]

    def test_a_checkpoint_that_is_not_there_or_unknown_is_named(
        self, launched: Launched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        said = launched.refused("data.path=x", "output=y", "model.path=someone/tuned")
        assert "model.path=someone/tuned" in said
        assert "model=NAME says whose settings it runs with" in said
        said = launched.refused("data.path=x", "output=y", "model.path=/no/such")
        assert "model.path=/no/such: no such folder" in said
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut" / "config.json").write_text('{"model_type": ')
        said = launched.refused("data.path=x", "output=y", "model.path=cut")
        assert "cut/config.json: cannot be read" in said
        (tmp_path / "bert").mkdir()
        (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
        said = launched.refused("data.path=x", "output=y", "model.path=bert")
        assert "model_type='bert' is not one of" in said


class TestSweep:
    def outputs(self, launched: Launched, *args: str) -> list[str]:
        return [config.output for config, _ in launched("-m", *args)]

    def test_runs_that_would_share_a_folder_get_their_own(self, launched: Launched) -> None:
        assert self.outputs(launched, "conf=demo", "decoding=threshold,factor") == [
            "runs/demo/decoding=threshold",
            "runs/demo/decoding=factor",
        ]
        both = self.outputs(launched, "conf=demo", "cache=none,dual", "seed=1,2", "output=o/")
        assert both[:2] == ["o/cache=none,seed=1", "o/cache=none,seed=2"]
        assert len(set(both)) == 4
        mixed = self.outputs(launched, "conf=demo,humaneval", "seed=1,2")
        assert mixed[::2] == ["runs/demo/seed=1", "runs/humaneval/seed=1"]

    def test_runs_with_folders_of_their_own_keep_them(self, launched: Launched) -> None:
        named = self.outputs(launched, "conf=demo", "seed=1,2", "output=r/${seed}")
        assert named == ["r/1", "r/2"]
        assert self.outputs(launched, "conf=demo", "seed=1") == ["runs/demo"]

    def test_values_that_no_folder_can_be_called_after_are_told_apart(
        self, launched: Launched
    ) -> None:
        tail = ("model=demo", "output=o")
        paths = self.outputs(launched, *tail, "data.path='a b/c','a*b/c','/d'")
        assert paths == ["o/data.path=_a_b_c,0", "o/data.path=_a_b_c,1", "o/data.path=_d"]
        long = self.outputs(launched, *tail, "data.path=a", f"prompt.system={'x' * 300},y")
        assert max(map(len, long)) < 120

    def test_a_faulty_job_of_a_sweep_stops_it_before_the_first_runs(
        self, launched: Launched
    ) -> None:
        said = launched.refused("-m", "conf=demo", "data.limit=3,many")
        assert "data.limit='many'" in said

    def test_shares_are_no_sweep(self, launched: Launched) -> None:
        said = launched.refused("-m", "conf=demo", "share=0/2,1/2")
        assert "share=0/2,1/2: the jobs of a sweep run one after another" in said
        configs = launched("-m", "conf=demo", "share=0/2", "seed=1,2")
        assert [(config.share, config.output) for config, _ in configs] == [
            ("0/2", "runs/demo/seed=1"),
            ("0/2", "runs/demo/seed=2"),
        ]


class TestOwnFiles:
    def refused(self, launched: Launched, file: Path, text: str, *args: str) -> str:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        said = launched.refused("--config-dir=mine (é)", *args)
        file.unlink()
        return said

    def test_a_file_of_ones_own_is_chosen_by_either_of_hydras_ways(
        self, launched: Launched, tmp_path: Path
    ) -> None:
        folder = tmp_path / "mine (é)"
        folder.mkdir()
        (folder / "job.yaml").write_text("model: {path: GSAI-ML/LLaDA-8B-Base}\ndata: {path: x}\n")
        (folder / "other.yaml").write_text("- nobody\n- asked for this\n")
        config = launched.one(f"--config-dir={folder}", "conf=job")
        assert (config.name, config.data.path, config.prompt.chat) == ("job", "x", False)
        assert launched.one(f"--config-dir={folder}", "--config-name=job") == config
        (folder / "decoding").mkdir()
        (folder / "decoding" / "mild.yaml").write_text("name: threshold\nthreshold: 0.5\n")
        config = launched.one(f"--config-dir={folder}", "conf=job", "decoding=mild")
        assert config.decoding == Threshold(threshold=0.5)

    def test_a_file_that_would_not_do_what_it_says_is_refused(
        self, launched: Launched, tmp_path: Path
    ) -> None:
        folder = tmp_path / "mine (é)"
        folder.mkdir()
        (folder / "job.yaml").write_text("data: {path: x}\n")
        said = launched.refused(f"--config-dir={folder}", "conf=jobb")
        assert "did you mean conf=job?" in said
        assert "has cruxeval_o, demo, gsm8k, humaneval, ifeval" in said
        model, told = folder / "model" / "my.yaml", "put the line `# @package _global_` at its head"
        text = "model: {path: x}\nengine: {block_length: 8}\n"
        assert told in self.refused(launched, model, text, "conf=job", "model=my")
        assert told in self.refused(launched, folder / "conf" / "j.yaml", text, "conf=j")
        text = "defaults:\n  - model: llada_8b\n"
        said = self.refused(launched, folder / "j.yaml", text, "conf=j")
        assert "write `override /model: llada_8b`" in said
        said = self.refused(launched, folder / "demo.yaml", "seed: 1\n", "conf=demo")
        assert "give the file another" in said
        said = self.refused(launched, folder / "j.yaml", "a: [", "conf=j")
        assert "j.yaml: is not YAML" in said
        said = self.refused(
            launched, folder / "j.yaml", "data: {path: x, limt: 3}\n", "conf=j", *DATA
        )
        assert "data.limt=3: no such field" in said
        said = launched.refused("conf=mine/job.yaml")
        assert "write --config-dir=mine conf=job" in said


def test_an_error_of_a_library_is_a_bug_that_can_be_reported(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise TypeError("unhashable type: 'list'")

    monkeypatch.setattr("pipeline.launch.compose_job", fails)
    said = launched.refused("conf=demo")
    assert "stopped: a bug: TypeError: unhashable type: 'list'; please report it" in said
    (name,) = re.findall(r"traceback in (\S+\.txt)", said)
    assert "in fails" in Path(name).read_text()
    Path(name).unlink()
