"""The output of a run as the input of the next: which rows, which ids, which names."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.run import run
from tests.checkpoints import job, output_rows, prompts, write_parquet

NUM_ROWS = 10


@pytest.fixture
def first(checkpoint: Path, tmp_path: Path) -> Path:
    """A finished run whose row 3 has failed."""
    rows = prompts(NUM_ROWS)
    rows[3]["prompt"] = None
    data = write_parquet(tmp_path / "in.parquet", rows)
    run(job(checkpoint, data, tmp_path / "a", stand_in=True), 0)
    return tmp_path / "a"


def second(checkpoint: Path, data: Any, output: Path, **changes: Any) -> list[dict[str, Any]]:
    run(job(checkpoint, data, output, stand_in=True, **changes), 0)
    return output_rows(output)


def test_good_rows_keep_their_ids_and_columns_that_collide_get_the_runs_name(
    checkpoint: Path, first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [row for row in output_rows(first) if row["error"] is None]
    capfd.readouterr()
    rows = second(checkpoint, first, tmp_path / "b", prompt__template="{prompt}|{text}")
    said = capfd.readouterr().err
    assert said.count("left out 1 rows that failed in that run") == 1
    assert [row["row_id"] for row in rows] == [row["row_id"] for row in before]
    for row, its in zip(rows, before, strict=True):
        assert (row["prompt"], row["tags"], row["about"]) == (
            its["prompt"],
            its["tags"],
            its["about"],
        )
        for name in ("row_id", "text", "token_ids", "seed", "error", "mean_confidence"):
            assert row[f"a_{name}"] == its[name]
        assert row["num_prompt_tokens"] > its["num_prompt_tokens"]
    third = second(checkpoint, tmp_path / "b", tmp_path / "c", data__carry=["text", "a_text"])
    assert [row["row_id"] for row in third] == [row["row_id"] for row in before]
    assert [row["b_text"] for row in third] == [row["text"] for row in rows]
    assert [row["a_text"] for row in third] == [row["text"] for row in before]


def test_the_seed_of_the_first_result_is_not_that_of_the_second(
    checkpoint: Path, first: Path, tmp_path: Path
) -> None:
    """It would override the job's own; a column that the user names for it still does."""
    rows = second(checkpoint, first, tmp_path / "b", seed=5)
    assert all(row["seed"] != row["a_seed"] for row in rows)
    changes = {"columns__seed": "num_prompt_tokens"}
    named = second(checkpoint, first, tmp_path / "c", data__carry=["num_prompt_tokens"], **changes)
    assert [row["seed"] for row in named] == [row["a_num_prompt_tokens"] for row in named]


def test_data_rename_gives_another_name(checkpoint: Path, first: Path, tmp_path: Path) -> None:
    changes = {"data__carry": ["text", "prompt"], "data__rename": {"text": "draft"}}
    (row, *_) = second(checkpoint, first, tmp_path / "b", **changes)
    assert list(row)[2:5] == ["draft", "prompt", "text"]


def test_samples_of_one_row_have_different_ids(
    checkpoint: Path, first: Path, tmp_path: Path
) -> None:
    changes = {"generation__num_samples": 3, "generation__temperature": 0.5}
    second(checkpoint, first, tmp_path / "b", **changes)
    rows = second(checkpoint, tmp_path / "b", tmp_path / "c", **changes)
    assert [row["row_id"] for row in rows[:7]] == ["in:0:0"] * 3 + ["in:0:1"] * 3 + ["in:0:2"]
    assert len({(row["row_id"], row["sample_index"]) for row in rows}) == 9 * 3 * 3
    third = second(checkpoint, tmp_path / "c", tmp_path / "d", data__limit=4, data__carry=[])
    assert [row["row_id"] for row in third] == ["in:0:0:0", "in:0:0:1", "in:0:0:2", "in:0:1:0"]


def test_rows_of_several_runs_have_different_ids(
    checkpoint: Path, first: Path, tmp_path: Path
) -> None:
    run(job(checkpoint, tmp_path / "in.parquet", tmp_path / "b", stand_in=True), 0)
    rows = second(
        checkpoint,
        [first, tmp_path / "b"],
        tmp_path / "c",
        data__carry=["text"],
        data__rename={"text": "before"},
    )
    assert len(rows) == len({row["row_id"] for row in rows}) == 2 * (NUM_ROWS - 1)
    assert [rows[0]["row_id"], rows[-1]["row_id"]] == ["a/in:0", "b/in:9"]
    with pytest.raises(SystemExit):
        second(checkpoint, [first, tmp_path / "b"], tmp_path / "d")


def test_a_condition_counts_only_good_rows(checkpoint: Path, first: Path, tmp_path: Path) -> None:
    where = {"data__where": "finish_reason IS NOT NULL AND num_generated_tokens >= 0"}
    rows = second(checkpoint, first, tmp_path / "b", data__limit=5, **where)
    assert [row["row_id"] for row in rows] == [f"in:{i}" for i in (0, 1, 2, 4, 5)]


def test_a_second_pass_resumes(
    checkpoint: Path, first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = second(checkpoint, first, tmp_path / "b")
    (tmp_path / "b" / "data" / "part-00001.parquet").unlink()
    assert second(checkpoint, first, tmp_path / "b") == rows
    for file in (first / "data").iterdir():
        file.touch()  # other times, the same rows: they are inspected again
    (tmp_path / "b" / "data" / "part-00001.parquet").unlink()
    assert second(checkpoint, first, tmp_path / "b") == rows


def test_a_run_of_failed_rows_only_has_a_remedy(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": " "}, {"prompt": ""}])
    run(job(checkpoint, data, tmp_path / "a", stand_in=True, max_failed_fraction=1.0), 0)
    with pytest.raises(SystemExit):
        second(checkpoint, tmp_path / "a", tmp_path / "b")
    assert "no rows that did not fail, of 2 in 1 files; name another run" in capfd.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_summary_of_something_else_is_refused(
    checkpoint: Path, first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (first / "summary.json").write_text(json.dumps({"num_parts": "many"}))
    with pytest.raises(SystemExit):
        second(checkpoint, first, tmp_path / "b")
    assert "summary.json is not that of a run" in capfd.readouterr().err


def test_prompts_that_the_first_run_kept_get_its_name_too(
    checkpoint: Path, first: Path, tmp_path: Path
) -> None:
    before = second(checkpoint, first, tmp_path / "b", prompt__keep=True)
    rows = second(checkpoint, tmp_path / "b", tmp_path / "c", prompt__keep=True)
    for name in ("prompt_text", "messages_with_answer"):
        assert [row[f"b_{name}"] for row in rows] == [row[name] for row in before]
        assert all(row[name] for row in rows)
    assert "prompt_text" in second(checkpoint, tmp_path / "b", tmp_path / "d")[0]


def test_other_files_beside_a_run_need_its_columns(
    checkpoint: Path, first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [first, tmp_path / "in.parquet"]
    with pytest.raises(SystemExit):
        second(checkpoint, paths, tmp_path / "b", data__carry=["prompt"])
    said = capfd.readouterr().err
    assert "other files beside an earlier run need its columns row_id, sample_index" in said
    assert f"data.path=[{first}/data, ...] columns.seed=null" in said
    as_it_says = [first / "data", tmp_path / "in.parquet"]
    changes = {"columns__seed": None, "data__carry": ["prompt"]}
    rows = second(checkpoint, as_it_says, tmp_path / "b", **changes)
    assert len(rows) == 2 * NUM_ROWS
