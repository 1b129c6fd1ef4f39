"""The jobs that a command line composes: ready ones, fields with text as it is typed, sweeps."""

from pathlib import Path

import pytest

from engine.cache.none import NoCache
from engine.decoding.fixed import Fixed
from tests.pipeline.launch.command_line import DATA, Launched


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


def test_own_data_needs_no_ready_job(launched: Launched) -> None:
    config = launched.one("model=demo", "data.path=x.parquet", "output=out")
    assert (config.name, config.output) == (None, "out")
    assert "output is missing" in launched.refused("model=demo", "data.path=x.parquet")


def test_a_sweep_runs_all_jobs_in_turn(launched: Launched, tmp_path: Path) -> None:
    jobs = launched("-m", "conf=demo,humaneval")
    assert [(config.name, number) for config, number in jobs] == [("demo", 0), ("humaneval", 1)]
    assert [config.output for config, _ in jobs] == ["runs/demo", "runs/humaneval"]
    assert list(tmp_path.iterdir()) == []


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
