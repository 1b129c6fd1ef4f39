"""A wrong command line is told with what to type; so is a YAML file of one's own that is wrong."""

import re
from pathlib import Path

import pytest

from engine.decoding.threshold import Threshold
from pipeline.launch import SILENCE_S, options
from tests.pipeline.launch.command_line import DATA, Launched


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


def test_other_ranks_hold_their_message_back(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("time.sleep", waits.append)
    launched.refused("conf=nothing")
    assert waits == [SILENCE_S]


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
