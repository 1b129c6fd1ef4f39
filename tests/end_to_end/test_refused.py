"""Settings, checkpoints and outputs that are refused: one message, and nothing is written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.run import make_plan_of, run
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.ranks import Worker
from tests.checkpoints import (
    job,
    output_rows,
    write_checkpoint,
)
from tests.end_to_end.stopped import Stopped


def test_a_run_folder_keeps_its_settings(
    checkpoint: Path, data: Path, tmp_path: Path, stopped: Stopped
) -> None:
    run(job(checkpoint, data, tmp_path / "run", data__limit=8), 0)
    said = stopped(job(checkpoint, data, tmp_path / "run", data__limit=9, seed=1))
    assert "data.limit: 8 there, 9 now" in said
    assert "seed: 0 there, 1 now" in said
    run(job(checkpoint, data, tmp_path / "run", data__limit=8, engine__max_sequences=1), 0)
    assert len(output_rows(tmp_path / "run")) == 8


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"generation__max_new_tokens": 256}, "generation.max_new_tokens=256: leaves no room"),
        ({"data__path": "nowhere.parquet"}, "data.path=nowhere.parquet: no such file"),
        ({"model__path": "/no/such"}, "model.path=/no/such"),
        ({"engine__tensor_parallel": 2}, "engine.tensor_parallel=2 with a world size of 1"),
    ],
)
def test_a_mistake_stops_the_job_before_anything_is_written(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    stopped: Stopped,
    changes: dict[str, Any],
    told: str,
) -> None:
    config = job(checkpoint, data, tmp_path / "run", **changes)
    assert told in stopped(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mask_token_id": 3}, "mask_token_id=3 is .* must be .*mdm_mask.*: correct mask_token_id"),
        ({"eos_token_id": 4}, "eos_token_id=4 is .* no token of ordinary text"),
        ({"n_layers": 3}, r"disagree:\n  missing model.transformer.blocks.2"),
        ({"n_layers": 1}, r"disagree:\n  surplus model.transformer.blocks.1"),
        ({"mlp_hidden_size": 79}, r"misshapen .*ff_proj.weight \[80, 48\], not \[79, 48\]"),
        ({"alibi": True}, "alibi=True: the LLaDA loader supports only False"),
        ({"model_type": "bert"}, "model_type='bert' is not one of Dream, "),
    ],
    ids=str,
)
def test_a_checkpoint_that_contradicts_itself_stops_the_job_before_anything_is_written(
    data: Path, tmp_path: Path, stopped: Stopped, changes: dict[str, Any], told: str
) -> None:
    folder = write_checkpoint(tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))
    assert re.search(told, stopped(job(folder, data, tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_hub_id_that_is_not_downloaded_stops_the_job_offline(
    data: Path, tmp_path: Path, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = job(Path("GSAI-ML/LLaDA-8B-Instruct"), data, tmp_path / "run", model__revision="v1")
    said = stopped(config)
    assert "model.path=GSAI-ML/LLaDA-8B-Instruct (revision v1) is not a folder" in said
    assert "if this machine is offline, download it" in said
    assert not (tmp_path / "run").exists()


def test_a_model_that_a_group_of_this_size_cannot_share_is_refused_before_anything_is_written(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    """The check of rank 0, in a world of three."""
    config = job(checkpoint, data, tmp_path / "run", engine__tensor_parallel=3)
    with pytest.raises(ValueError, match=r"engine\.tensor_parallel=3: does not divide"):
        make_plan_of(config, RunFolder(config.output), Worker(rank=0, world=3))
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_stops_the_job(
    checkpoint: Path, data: Path, stopped: Stopped
) -> None:
    said = stopped(job(checkpoint, data, data / "run"))
    assert f"output={data / 'run'}: cannot be written" in said
