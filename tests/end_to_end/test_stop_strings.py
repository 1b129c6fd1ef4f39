"""A job with stop strings, from its config and its rows to its output."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine import LLM
from pipeline.plan.build import make_plan, pin
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet

SETTINGS: dict[str, Any] = {
    "generation__max_new_tokens": 40,
    "generation__temperature": 1.0,
    "seed": 2,
}


def rows_of(folder: Path, checkpoint: Path, data: Path, **changes: Any) -> list[dict[str, Any]]:
    run(job(checkpoint, data, folder, **SETTINGS, **changes), 0)
    return output_rows(folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "in.parquet", prompts(14))


def assert_cut(rows: list[dict[str, Any]], whole: list[dict[str, Any]], stops: list[Any]) -> int:
    """Each row is the whole one up to its first stop string. Returns how many were cut."""
    num_cut = 0
    for row, uncut, its in zip(rows, whole, stops, strict=True):
        places = [uncut["text"].find(stop) for stop in its or [] if stop in uncut["text"]]
        if not places:
            assert (row["text"], row["finish_reason"]) == (uncut["text"], uncut["finish_reason"])
            continue
        num_cut += 1
        assert row["text"] == uncut["text"][: min(places)]
        assert row["finish_reason"] == "stop"
        assert row["token_ids"] == uncut["token_ids"][: row["num_generated_tokens"]]
        assert row["num_iterations"] <= uncut["num_iterations"]
    return num_cut


def test_generation_stop_cuts_every_row_and_a_column_that_is_named_overrides_it(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    whole = rows_of(tmp_path / "whole", checkpoint, data)
    stop = [whole[0]["text"][6:8], whole[1]["text"][3:6], whole[2]["text"][:1]]
    rows = rows_of(tmp_path / "cut", checkpoint, data, generation__stop=stop)
    assert assert_cut(rows, whole, [stop] * len(whole)) >= 3
    summary = json.loads((tmp_path / "cut" / "summary.json").read_text())
    assert summary["num_generated_tokens"] == sum(row["num_generated_tokens"] for row in rows)
    llm = LLM(
        checkpoint,
        decoding={"name": "threshold", "threshold": 0.3},
        cache="dual",
        block_length=4,
        device="cpu",
        dtype="float32",
    )
    answers = llm.generate(
        [row["prompt"] for row in prompts(14)],
        max_new_tokens=40,
        temperature=1.0,
        seed=[row["seed"] for row in rows],
        stop=stop,
        progress=False,
    )
    assert [answer.text for answer in answers] == [row["text"] for row in rows]
    own = [[None, [], [row["text"][2:4]]][i % 3] for i, row in enumerate(whole)]
    ends = [{**row, "ends": its} for row, its in zip(prompts(14), own, strict=True)]
    (tmp_path / "ends").mkdir()
    other = write_parquet(tmp_path / "ends" / "in.parquet", ends)
    rows = rows_of(tmp_path / "own", checkpoint, other, generation__stop=stop, columns__stop="ends")
    assert_cut(rows, whole, [stop if its is None else its for its in own])
    assert pq.read_schema(next((tmp_path / "own" / "data").glob("*.parquet"))).names.count("ends")


def test_a_run_is_resumed_with_its_stop_strings_alone(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    rows = rows_of(tmp_path / "run", checkpoint, data, generation__stop=["a"])
    part = sorted((tmp_path / "run" / "data").glob("*.parquet"))[1]
    part.unlink()
    assert_same_rows(rows_of(tmp_path / "run", checkpoint, data, generation__stop=["a"]), rows)
    changed = job(checkpoint, data, tmp_path / "run", **SETTINGS, generation__stop=["b"])
    with pytest.raises(ValueError, match=r"generation\.stop: \['a'\] there, \['b'\] now"):
        pin(make_plan(changed, checkpoint), RunFolder(tmp_path / "run"))
