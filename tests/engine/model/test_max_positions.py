"""The longest canvas: Dream's is its family's, and the user may set another, within what
config.json states."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import LLM
from engine.errors import UserError
from engine.model.families import config_of
from engine.model.load import load_model, read_config, warn_of_long_canvases
from engine.model.plan.__main__ import main
from engine.parallel import ALONE
from pipeline.generate.models import Models
from pipeline.generate.worker import make_engine, make_prompter
from pipeline.prompt.prompter import PromptError
from pipeline.run import make_plan_of
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.ranks import Worker
from tests.checkpoints import job, prompts, write_checkpoint, write_parquet
from tests.published import write_tokenizer
from tests.published_configs import DREAM, LLADA
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def dreams(**changes: Any) -> tuple[int, int | None]:
    config = config_of(DREAM | changes, "dream")
    return config.max_positions, config.stated_positions


def test_dreams_context_is_2048_whatever_config_json_says() -> None:
    assert dreams() == (2048, 131072)
    assert dreams(max_position_embeddings=1024) == (1024, 1024)


def test_another_may_be_set_up_to_what_config_json_states() -> None:
    dream, llada = config_of(DREAM, "dream"), config_of(LLADA, "llada")
    assert dream.with_positions(None) is dream
    assert [dream.with_positions(n).max_positions for n in (1, 4096, 131072)] == [1, 4096, 131072]
    assert dream.with_positions(4096).with_positions(8192).max_positions == 8192
    told = r"model\.max_positions=131073: give 1 to 131072, .* or null for the 2048"
    with pytest.raises(UserError, match=told):
        dream.with_positions(131073)
    for wrong in (0, -1, 4097):
        with pytest.raises(UserError, match=rf"model\.max_positions={wrong}: give 1 to 4096"):
            llada.with_positions(wrong)


def test_more_than_the_model_was_trained_for_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    dream = config_of(DREAM, "dream")
    with caplog.at_level(logging.WARNING, "engine"):
        for taken in (None, 100, 2048):
            warn_of_long_canvases(dream, taken)
        assert caplog.messages == []
        warn_of_long_canvases(dream, 4096)
    (told,) = caplog.messages
    assert told.startswith("model.max_positions=4096: more than the 2048 positions")


def test_the_planner_keeps_to_it(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["model=dream", "gpu_memory_gb=80", "prompt_tokens=2048", "max_new_tokens=512"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "a canvas of 2560 tokens exceeds the 2048 positions that dream was trained for" in told
    assert told.strip().endswith("or set max_positions=131072 or less")
    assert main([*arguments, "max_positions=2600"]) == 0
    assert "a canvas of 2,560 tokens" in capsys.readouterr().out
    assert len(caplog.messages) == 1
    assert main([*arguments, "max_positions=2000"]) == 2
    assert "exceeds the 2000 positions that dream is given by" in capsys.readouterr().err
    assert main([*arguments, "max_positions=200000"]) == 2
    assert "model.max_positions=200000: give 1 to 131072" in capsys.readouterr().err


def test_it_reaches_the_loaded_model(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    assert load_model(tmp_path).config.max_positions == 256
    assert load_model(tmp_path, max_positions=64).config.max_positions == 64
    assert read_config(tmp_path, 64).stated_positions == 256
    with pytest.raises(UserError, match="give 1 to 256"):
        load_model(tmp_path, max_positions=257)


def test_it_reaches_a_jobs_prompts_and_its_engine(checkpoint: Path) -> None:
    config = job(checkpoint, "in.parquet", "out", model__max_positions=64)
    prompter = make_prompter(config, checkpoint)
    assert prompter.token_ids({"prompt": "a"}, 32)
    with pytest.raises(PromptError, match=r"the model's context of 64; shorten the prompt"):
        prompter.token_ids({"prompt": "a" * 60}, 8)
    engine = make_engine(
        config, config.engine, checkpoint, torch.device("cpu"), ALONE, prompter.text, Models()
    )
    assert engine.model_config.max_positions == 64
    long = job(
        checkpoint, "in.parquet", "out", model__max_positions=64, generation__max_new_tokens=64
    )
    with pytest.raises(
        UserError, match=r"generation\.max_new_tokens=64: .* context of 64; lower it, or raise"
    ):
        make_prompter(long, checkpoint)
    with pytest.raises(UserError, match=r"model\.max_positions=0: give at least 1, or null"):
        job(checkpoint, "in.parquet", "out", model__max_positions=0)


def test_a_job_says_it_once_when_it_plans(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "dream"
    write_tokenizer(folder, "dream")
    (folder / "config.json").write_text(json.dumps(DREAM))
    data = write_parquet(tmp_path / "in.parquet", prompts(3))
    config = job(folder, data, tmp_path / "run", model__max_positions=4096)
    run_folder, worker = RunFolder(config.output), Worker(rank=0, world=1)
    plan = make_plan_of(config, run_folder, worker, with_weights=False)
    assert plan.fingerprint["model.max_positions"] == 4096
    assert [text[:26] for text in caplog.messages] == ["model.max_positions=4096: "]


def test_it_reaches_a_notebook(checkpoint: Path) -> None:
    llm = LLM(checkpoint, max_positions=64, cache_tokens=256, max_sequences=2)
    short, long = llm.generate(["a", "a" * 60], max_new_tokens=8, progress=False)
    assert short.error is None
    assert long.error is not None
    assert "the model's context of 64" in long.error
