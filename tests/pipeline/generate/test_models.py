"""The model is loaded once for jobs that follow one another, and their rows do not change by it."""

import runpy
from pathlib import Path
from unittest import mock

import pytest

from engine.model.load import load_model
from pipeline.generate.models import Models
from pipeline.run import run
from tests.checkpoints import (
    assert_same_rows,
    job,
    output_rows,
    prompts,
    write_checkpoint,
    write_parquet,
)


def test_jobs_share_a_model(checkpoint: Path, tmp_path: Path) -> None:
    data, models = write_parquet(tmp_path / "in.parquet", prompts(6)), Models()
    settings = [("a", {"name": "dual"}), ("b", {"name": "none"}), ("c", {"name": "dual"})]
    for number, (name, cache) in enumerate(settings):
        run(job(checkpoint, data, tmp_path / name, cache=cache), number, models=models)
    assert models.num_loads == 1
    run(job(checkpoint, data, tmp_path / "alone"), 7)
    for name in ("a", "c"):
        assert_same_rows(output_rows(tmp_path / name), output_rows(tmp_path / "alone"))


def test_another_model_takes_its_place(checkpoint: Path, tmp_path: Path) -> None:
    data, models = write_parquet(tmp_path / "in.parquet", prompts(2)), Models()
    other = write_checkpoint(tmp_path / "other", seed=2)
    for number, (model, dtype) in enumerate(
        [(checkpoint, "float32"), (other, "float32"), (other, "bfloat16"), (checkpoint, "float32")]
    ):
        config = job(model, data, tmp_path / str(number), model__dtype=dtype)
        run(config, number, models=models)
        assert models.num_loads == number + 1
    assert_same_rows(output_rows(tmp_path / "0"), output_rows(tmp_path / "3"))


def test_a_job_that_is_not_told_prints_only_progress(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(2))
    run(job(checkpoint, data, tmp_path / "run"), 0, is_told=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "loading" not in err
    assert "2/2 rows" in err
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.filterwarnings("ignore::RuntimeWarning:runpy")
def test_a_sweep_loads_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(2))
    arguments = [
        *("-m", "decoding=threshold,factor", f"model.path={checkpoint}", f"data.path={data}"),
        *(f"output={tmp_path / 'run'}", "generation.max_new_tokens=8", "prompt.chat=false"),
    ]
    monkeypatch.setattr("sys.argv", ["pipeline.run", *arguments])
    with mock.patch("pipeline.generate.models.load_model", wraps=load_model) as load:
        runpy.run_module("pipeline.run", run_name="__main__")
    assert load.call_count == 1
    assert len(output_rows(tmp_path / "run" / "decoding=factor")) == 2
