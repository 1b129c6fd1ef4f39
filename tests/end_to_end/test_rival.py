"""A job with engine=transformers: the same files as with a diffusion model, and the tokens of the
library's own `generate`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import GenerationConfig

from pipeline.autoregressive.checkpoint import load, read_checkpoint
from pipeline.run import run
from tests.checkpoints import output_rows, prompts, write_parquet
from tests.launched import composed, jobs_of
from tests.qwen2 import write_qwen2

ROWS = 18
SIZES = ["engine.max_sequences=4", "engine.cache_tokens=1024", "engine.page_size=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture
def words(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of a job in an empty folder."""
    monkeypatch.chdir(tmp_path)
    data = write_parquet(tmp_path / "prompts.parquet", prompts(ROWS))
    return [
        *("engine=transformers", f"model.path={folder}", f"data.path={data}", "output=runs/rival"),
        *("data.part_rows=5", "data.id_column=task_id", "generation.max_new_tokens=12", *SIZES),
    ]


def test_rows_once_resumable_and_the_tokens_of_generate(
    folder: Path, words: list[str], tmp_path: Path
) -> None:
    run(composed(*words), 0)
    place = tmp_path / "runs" / "rival"
    rows = output_rows(place)
    assert sorted(row["row_id"] for row in rows) == sorted(row["task_id"] for row in prompts(ROWS))
    assert_as_generate(folder, rows)
    (place / "data" / "part-00001.parquet").unlink()
    (place / "stats" / "part-00001.parquet").unlink()
    run(composed(*words), 0)
    assert output_rows(place) == rows
    assert_reported(place, rows)


def assert_as_generate(folder: Path, rows: list[dict[str, Any]]) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model: Any = load(folder, "float32", torch.device("cpu"))
    eos = list(read_checkpoint(folder).eos_token_ids)
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=12, eos_token_id=eos, pad_token_id=0
    )
    for row in rows:
        turns = [{"role": "user", "content": row["prompt"]}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        assert row["num_prompt_tokens"] == ids.shape[1]
        new = model.generate(ids, generation_config=settings)[0, ids.shape[1] :].tolist()
        assert row["token_ids"] == [id for id in new if id not in eos]
        assert row["finish_reason"] == ("eos" if new[-1] in eos else "length")
        assert row["num_iterations"] == len(new)


def assert_reported(place: Path, rows: list[dict[str, Any]]) -> None:
    summary = json.loads((place / "summary.json").read_text())
    assert summary["num_generated_tokens"] == sum(row["num_generated_tokens"] for row in rows)
    assert 0 < summary["tokens_per_forward"] <= 1
    settings = yaml.safe_load((place / "config.yaml").read_text())
    assert not {"decoding", "cache"} & set(settings), "nobody may take it for a diffusion model's"
    assert settings["engine"]["backend"] == "transformers"
    card = (place / "README.md").read_text()
    assert "diffusion" not in card
    assert "autoregressive language model" in card
    assert (place / "report.html").is_file()


def test_the_checkpoint_says_the_dtype(words: list[str], folder: Path, tmp_path: Path) -> None:
    assert composed(*words).model.dtype == "float32"
    half = write_qwen2(tmp_path / "half", torch.bfloat16)
    others = [word for word in words if not word.startswith("model.path")]
    assert composed(*others, f"model.path={half}").model.dtype == "bfloat16"
    typed = composed(*others, f"model.path={half}", "model.dtype=float16")
    assert typed.model.dtype == "float16"


def test_of_a_ready_job_only_data_and_prompts_are_taken(folder: Path) -> None:
    words = ["conf=humaneval", "engine=transformers", f"model.path={folder}", "output=x"]
    config = composed(*words)
    assert config.task == "humaneval"
    assert config.generation.max_new_tokens == 512
    assert config.engine.block_length is None
    assert config.model.dtype == "float32"


@pytest.mark.parametrize(
    "word",
    [
        *("decoding=threshold", "decoding.threshold=0.8", "cache=dual", "engine.block_length=32"),
        *("engine.soft.enabled=true", "engine.kernels=torch", "generation.guidance=1.0"),
        *("model=llada_8b", "columns.guidance=g", "generation.confidence=raw"),
    ],
)
def test_what_does_not_apply_is_refused(
    words: list[str], word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        jobs_of(*words, word)
    said = capfd.readouterr().err
    assert f"{word} with engine=transformers: does not apply" in said


def test_a_checkpoint_is_needed_and_must_be_autoregressive(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    others = [word for word in words if not word.startswith("model.path")]
    for more, told in (
        ([], "give the autoregressive checkpoint, model.path=FOLDER"),
        (["conf=humaneval"], "give the autoregressive checkpoint, model.path=FOLDER"),
        (["model.path=nowhere/at/all"], "model.path=nowhere/at/all"),
        ([f"model.path={Path(__file__).parents[2] / 'jobs/demo/model'}"], "leave out"),
    ):
        with pytest.raises(SystemExit):
            jobs_of(*others, *more)
        assert told in capfd.readouterr().err


def test_a_run_is_not_mixed_with_a_diffusion_models(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(composed("conf=demo", "data.limit=2", "output=runs/rival", "stand_in=true"), 0)
    with pytest.raises(SystemExit):
        run(composed(*words), 0)
    assert "engine.backend: not set there, transformers now" in capfd.readouterr().err
