"""The settings of each model, chosen by its name or known from its checkpoint."""

from pathlib import Path

import pytest

from engine.cache.block_causal import BlockCausalCache
from engine.cache.none import NoCache
from engine.decoding.edit import Edit
from engine.decoding.factor import Factor
from pipeline.launch import options
from tests.checkpoints import write_checkpoint
from tests.pipeline.launch.command_line import Launched

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
