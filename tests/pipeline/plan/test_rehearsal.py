"""Columns of every kind go through a whole job, or stop it before anything is written."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.plan.build import make_plan
from pipeline.plan.rehearsal import rehearse
from pipeline.run import run
from tests.checkpoints import job, output_rows

S = pa.string()
KINDS = {
    "string_view": pa.array(["a", None], pa.string_view()),
    "binary_view": pa.array([b"a", None], pa.binary_view()),
    "list of views": pa.array([["a"], None], pa.list_(pa.string_view())),
    "list_view": pa.array([["a", None], []], pa.list_view(pa.string_view())),
    "large_list_view": pa.array([None, [1]], pa.large_list_view(pa.int8())),
    "struct of views": pa.array([{"a": ["x"]}, None], pa.struct([("a", pa.list_view(S))])),
    "map of views": pa.array([[("k", "v")], None], pa.map_(S, pa.string_view())),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "list of dictionary": pa.ListArray.from_arrays(
        [0, 1, 2], pa.array(["a", "b"]).dictionary_encode()
    ),
    "null": pa.nulls(2),
    "list of null": pa.array([[None], []], pa.list_(pa.null())),
    "float16": pa.array([1.0, None], pa.float16()),
    "decimal256": pa.array([1, None], pa.decimal256(50, 2)),
    "time": pa.array([1, None], pa.time64("ns")),
    "nanoseconds": pa.array([1, None], pa.timestamp("ns", "UTC")),
    "uuid": pa.array([b"0" * 16, None], pa.uuid()),
    "json": pa.array(["{}", None], pa.json_()),
    "tensor": pa.FixedShapeTensorArray.from_storage(
        pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))
    ),
    "struct of null": pa.array([{"a": None}] * 2, pa.struct([("a", pa.null())])),
    "wide": pa.array([{f"f{i}": i for i in range(300)}] * 2),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_column_reaches_the_output(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    """Through condition, output and a second try of a failed row; polars reads the files."""
    table = pa.table({"prompt": ["a", "b"], "x": KINDS[name]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    where = {"data__where": "x IS NOT NULL OR prompt <> ''"} if "256" not in name else {}
    config = job(checkpoint, tmp_path / "in.parquet", tmp_path / "run", stand_in=True, **where)
    run(config, 0)
    column = pa.concat_tables(
        pq.ParquetFile(file).read() for file in sorted((tmp_path / "run/data").glob("*"))
    )["x"]
    if not column.type.equals(table["x"].type):
        assert column.to_pylist() == table["x"].to_pylist()
    else:  # Python has no nanoseconds
        assert column.combine_chunks().equals(table["x"].combine_chunks())
    if name != "decimal256":  # polars' decimals end at 38 digits
        assert pl.read_parquet(tmp_path / "run" / "data").height == 2


def test_a_condition_on_what_polars_does_not_know_is_one_line(
    checkpoint: Path, tmp_path: Path
) -> None:
    table = pa.table({"prompt": ["a"], "x": pa.array([1], pa.decimal256(50, 2))})
    pq.write_table(table, tmp_path / "in.parquet")
    config = job(checkpoint, tmp_path / "in.parquet", tmp_path / "run", data__where="x > 1")
    with pytest.raises(ValueError, match=r"data\.where='x > 1': polars cannot do this"):
        make_plan(config, checkpoint)


def test_a_step_that_fails_names_the_file_the_column_and_the_remedy(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the types that Parquet can hold, all go through today; here `take` refuses one."""
    pq.write_table(pa.table({"prompt": ["a"], "n": [1], "x": [1.5]}), tmp_path / "in.parquet")
    write = pq.write_table

    def refusing(table: pa.Table, *args: Any, **others: Any) -> None:
        if pa.float64() in [field.type for field in table.schema if field.name.startswith("input")]:
            raise pa.ArrowNotImplementedError("no kernel for double\nmore")
        write(table, *args, **others)

    monkeypatch.setattr("pipeline.plan.rehearsal.pq.write_table", refusing)
    config = job(checkpoint, tmp_path / "in.parquet", tmp_path / "run")
    wanted = r"in\.parquet: the column 'x' of type double cannot be carried to the output \(no ker"
    with pytest.raises(ValueError, match=wanted) as error:
        make_plan(config, checkpoint)
    assert "leave it out with data.carry=[...]" in str(error.value)
    assert not (tmp_path / "run").exists()
    without = job(checkpoint, tmp_path / "in.parquet", tmp_path / "run", data__carry=["n"])
    assert make_plan(without, checkpoint).carried == ["n"]


def test_the_first_file_with_rows_is_tried(checkpoint: Path, tmp_path: Path) -> None:
    empty, full = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.table({"prompt": pa.array([], S)}), empty)
    pq.write_table(pa.table({"prompt": ["x"]}), full)
    plan = make_plan(job(checkpoint, [empty, full], tmp_path / "run"), checkpoint)
    assert [part.file for part in plan.parts] == [1]


def test_text_that_is_not_utf8_reaches_no_file(checkpoint: Path, tmp_path: Path) -> None:
    """Each wrong byte is U+FFFD in the output, whatever it is nested in; bytes stay bytes."""
    bad = pa.array([b"caf\xe9", b"fine", None]).cast(S, safe=False)
    blob = pa.array([b"\xff", b"", None])
    columns = {
        "prompt": pa.array(["a", "b", "c"]),
        "flat": bad,
        "large": bad.cast(pa.large_string()),
        "view": bad.cast(pa.string_view()),
        "dictionary": pa.DictionaryArray.from_arrays([0, 1, None], bad[:2]),
        "list": pa.ListArray.from_arrays([0, 1, 2, 3], bad),
        "struct": pa.StructArray.from_arrays([bad, blob], ["t", "b"]),
        "map": pa.MapArray.from_arrays([0, 1, 2, 2], bad[:2], bad[:2]),
        "blob": blob,
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    config = job(
        checkpoint,
        tmp_path / "in.parquet",
        tmp_path / "run",
        stand_in=True,
        data__where="flat <> 'fine' OR list IS NOT NULL",
    )
    run(config, 0)
    assert pl.read_parquet(tmp_path / "run" / "data").height == 3
    rows = output_rows(tmp_path / "run")
    wrong = "caf\ufffd"
    assert [row["error"] for row in rows] == [None] * 3
    for name in ("flat", "large", "view", "dictionary"):
        assert [row[name] for row in rows] == [wrong, "fine", None]
    assert rows[0]["list"] == [wrong]
    assert rows[0]["struct"] == {"t": wrong, "b": b"\xff"}
    assert rows[0]["map"] == [(wrong, wrong)]
    assert rows[0]["blob"] == b"\xff"
    log = (tmp_path / "run" / "logs" / "rank-0.log").read_text()
    assert "column 'flat' is not UTF-8 in 1 rows (row 0)" in log
    assert "'blob'" not in log


def test_rehearsing_needs_a_row(checkpoint: Path, tmp_path: Path) -> None:
    assert rehearse([], None, None) is None  # type: ignore[arg-type]
