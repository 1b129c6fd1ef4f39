"""Whole jobs on small checkpoints in the published layouts, tokenizers included, one of every model
family: `python -m pipeline.run model=NAME model.path=FOLDER`."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.run import run
from tests.checkpoints import output_rows, prompts, write_parquet
from tests.launched import composed
from tests.published import write_tokenizer, write_weights
from tests.published_configs import LAYOUT_OF

NAMES = ["llada_1_5", "llada_moe", "llada2_1_mini", "dream_base", "fast_dllm_v2", "sdar_30b"]
NAMES += ["illada_8b", "stable_diffcoder", "dream_reasoner", "rnd1_base"]


@pytest.mark.parametrize("name", NAMES)
def test_a_job_runs_on_the_published_layout(tmp_path: Path, name: str) -> None:
    checkpoint, output = tmp_path / "SDAR-tiny-Chat-b8", tmp_path / "run"
    write_weights(checkpoint, LAYOUT_OF[name])
    write_tokenizer(checkpoint, LAYOUT_OF[name])
    data = write_parquet(tmp_path / "prompts.parquet", prompts(3))
    config = composed(
        *(f"model={name}", f"model.path={checkpoint}", f"data.path={data}", f"output={output}"),
        *("generation.max_new_tokens=8", "engine.logits_bytes=200000000", "threads=1"),
    )
    run(config, 0)
    rows = output_rows(output)
    assert [row["sample_index"] for row in rows] == [0, 0, 0]
    for row in rows:
        assert row["error"] is None
        assert len(row["token_ids"]) == row["num_generated_tokens"] <= 8
        assert row["finish_reason"] in ("eos", "length")
        # These tokenizers have one token per byte; Dream's base model gets a BOS, and a chat
        # template adds more.
        is_raw = row["num_prompt_tokens"] == len(row["prompt"]) + (name == "dream_base")
        assert is_raw == name.endswith("_base")
    assert pq.read_table(output / "stats").num_rows == 1
