"""The output: its schema, the order of its rows, and atomic writes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.request import FinishReason, Result
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import Outcome, output_schema, output_table

CARRIED = pa.table(
    {"id": [7, None], "about": [{"x": [1, None]}, None]},
    schema=pa.schema([("id", pa.int16()), ("about", pa.struct([("x", pa.list_(pa.int8()))]))]),
)


def done(text: str, **changes: object) -> Outcome:
    values: dict[str, object] = {
        "request_id": 0,
        "finish_reason": FinishReason.EOS,
        "token_ids": [1, 2],
        "num_prompt_tokens": 3,
        "num_iterations": 4,
        "num_refreshes": 1,
        "num_query_tokens": 50,
        "mean_confidence": 0.5,
        "seed": 2**63 - 1,
    }
    return Outcome(Result(**{**values, **changes}), text)  # type: ignore[arg-type]


FAILED = Outcome(
    Result(
        request_id=1,
        finish_reason=FinishReason.ERROR,
        error="prompt: null",
        num_prompt_tokens=0,
        seed=5,
    ),
    None,
)


def test_an_output_row_has_the_documented_columns() -> None:
    schema = output_schema(CARRIED.schema)
    table = output_table(schema, CARRIED, ["in:0", "in:1"], [1, 1], {0: done("a"), 1: FAILED})
    table.validate(full=True)
    assert table.schema == schema
    first, second = table.to_pylist()
    assert list(first) == [
        *("row_id", "sample_index", "id", "about", "text", "token_ids", "finish_reason", "error"),
        *("num_prompt_tokens", "num_generated_tokens", "num_iterations", "num_refreshes"),
        *("num_query_tokens", "mean_confidence", "seed"),
    ]
    assert first["about"] == {"x": [1, None]}
    assert (first["text"], first["finish_reason"], first["error"]) == ("a", "eos", None)
    assert (first["num_generated_tokens"], first["seed"]) == (2, 2**63 - 1)
    assert (second["text"], second["token_ids"]) == (None, [])
    assert (second["finish_reason"], second["error"]) == ("error", "prompt: null")
    assert (second["mean_confidence"], second["id"]) == (None, None)
    assert schema.field("token_ids").type == pa.list_(pa.int32())
    assert schema.field("sample_index").type == pa.int32()
    assert schema.field("seed").type == pa.int64()


def test_the_samples_of_a_row_follow_one_another() -> None:
    outcomes = [done(name) for name in "abcdef"]
    schema = output_schema(CARRIED.schema)
    table = output_table(schema, CARRIED, ["in:0", "in:1"], [4, 2], dict(enumerate(outcomes)))
    rows = table.to_pylist()
    assert [(row["row_id"], row["sample_index"], row["id"], row["text"]) for row in rows] == [
        *(("in:0", 0, 7, "a"), ("in:0", 1, 7, "b"), ("in:0", 2, 7, "c"), ("in:0", 3, 7, "d")),
        *(("in:1", 0, None, "e"), ("in:1", 1, None, "f")),
    ]


def test_a_written_file_reads_back_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.write_table(folder.data_file(3), CARRIED)
    assert pq.read_table(folder.data_file(3)).equals(CARRIED)
    column = pq.read_metadata(folder.data_file(3)).row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert [file.name for file in folder.data.iterdir()] == ["part-00003.parquet"]
    assert list((folder.path / "tmp").iterdir()) == []
    assert folder.parts_done() == {3}


def test_a_failed_write_keeps_the_old_file_and_leaves_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.write_text(folder.plan_file, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_text(folder.plan_file, "new")
    with pytest.raises(OSError, match="No space left"):
        folder.write_table(folder.data_file(0), CARRIED)
    assert folder.plan_file.read_text() == "old"
    assert folder.parts_done() == set()
    assert list((folder.path / "tmp").iterdir()) == []
