"""Which rows are taken, with which ids, how they are cut into parts, and how files are streamed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.files import InputFile
from pipeline.input.parts import Part, cut_counted
from pipeline.input.reader import ParquetRows, PartReader
from pipeline.input.where import Where
from pipeline.plan.build import make_plan
from pipeline.plan.run_json import Plan
from tests.checkpoints import job, prompts, write_json_lines, write_parquet

ROWS = [
    {**row, "lang": ["py", "c", None][i % 3], "key": f"k{i * 7 % 30}", "num": i * 3}
    for i, row in enumerate(prompts(30))
]


def plan_of(checkpoint: Path, data: Path | list[Path], **changes: Any) -> Plan:
    return make_plan(job(checkpoint, data, Path("run"), **changes), checkpoint)


def read(plan: Plan, where: str | None = None, ids: str | None = None) -> tuple[list, list]:
    """The rows and ids of all parts."""
    schema = plan.read_schema
    reader = PartReader(plan.files, schema, None if where is None else Where(where, schema), ids)
    parts = [reader.read(part) for part in plan.parts]
    return [row for rows, _, _ in parts for row in rows.to_pylist()], [
        row_id for _, ids_of_part, _ in parts for row_id in ids_of_part
    ]


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl"])
@pytest.mark.parametrize("limit", [None, 4, 9])
def test_only_the_rows_that_where_takes_are_in_parts(
    checkpoint: Path, tmp_path: Path, name: str, limit: int | None
) -> None:
    write = write_parquet if name == "in.parquet" else write_json_lines
    data, where = write(tmp_path / name, ROWS), "lang = 'py' AND num > 9"
    plan = plan_of(checkpoint, data, data__where=where, data__limit=limit)
    wanted = [i for i, row in enumerate(ROWS) if row["lang"] == "py" and row["num"] > 9][:limit]
    rows, ids = read(plan, where)
    assert rows == [ROWS[i] for i in wanted]
    assert ids == [f"in:{i}" for i in wanted]
    assert {part.num_rows for part in plan.parts[:-1]} <= {4}, "rows left out do not count"
    assert plan.num_rows == plan.num_outcomes == len(wanted)


def test_columns_that_only_where_or_the_id_needs_are_read_and_not_carried(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", ROWS)
    choice = {"data__where": "num > 9", "data__id_column": "key", "data__carry": ["tags"]}
    plan = plan_of(checkpoint, data, **choice)
    assert plan.carried == ["tags"]
    assert plan.read_schema.names == ["tags", "prompt", "num", "key"]


@pytest.mark.parametrize("error", [MemoryError("no room"), TypeError("our own mistake")])
def test_what_the_condition_is_not_to_blame_for_is_not_called_its_fault(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, rows = Where("num > 1", pa.schema([("num", pa.int64())])), pa.table({"num": [1, 2]})
    assert where.takes(rows).tolist() == [False, True]

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("polars.from_arrow", fail)
    with pytest.raises(type(error), match=str(error)):
        where.takes(rows)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lang ==== 3", "polars cannot do this"),
        ("langu = 'py'", "langu not in the data, which has task_id, prompt"),
        ("1 = 1", "names no column"),
        ("num + 1", "it must be true or false"),
        ("num = max(num)", "looks at other rows"),
        ("row_number() over (order by num) < 3", "looks at other rows"),
        ("num > avg(num)", "looks at other rows"),
        ("lang > 3", "polars cannot do this"),
        ("lang = 'cobol'", "no rows that data.where=.* takes"),
    ],
)
def test_an_invalid_condition_is_refused(
    checkpoint: Path, tmp_path: Path, where: str, message: str
) -> None:
    data = write_parquet(tmp_path / "in.parquet", ROWS)
    with pytest.raises(ValueError, match=message):
        plan_of(checkpoint, data, data__where=where)


def test_ids_come_from_the_id_column(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", ROWS)
    for column in ("key", "num"):
        plan = plan_of(checkpoint, data, data__id_column=column)
        assert read(plan, ids=column)[1] == [str(row[column]) for row in ROWS]
    same = [{"row_id": f"r{i}", "prompt": "x"} for i in range(3)]
    plan = plan_of(checkpoint, write_parquet(data, same), data__id_column="row_id")
    assert plan.carried == ["prompt"], "the output's own column row_id holds the same ids"


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        ([*ROWS, ROWS[3]], "key", r"row 3 of .*b\.parquet and row 30 of .*b\.parquet .* 'k21'"),
        ([{**ROWS[0], "key": None}], "key", r"null in row 0 of .*b\.parquet"),
        (ROWS, "kee", "'kee': not in the data"),
        (ROWS, "about", "of type struct"),
    ],
)
def test_missing_and_duplicate_ids_are_refused(
    checkpoint: Path, tmp_path: Path, rows: list, column: str, message: str
) -> None:
    first = write_parquet(tmp_path / "a.parquet", [{**ROWS[0], "key": "first"}])
    second = write_parquet(tmp_path / "b.parquet", rows)
    with pytest.raises(ValueError, match=message):
        plan_of(checkpoint, [first, second], data__id_column=column)


def test_a_row_that_is_left_out_needs_no_id(checkpoint: Path, tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[2], "key": None}, ROWS[2]]
    data = write_parquet(tmp_path / "in.parquet", rows)
    choice = {"data__where": "lang IS NOT NULL", "data__id_column": "key"}
    assert plan_of(checkpoint, data, **choice).num_rows == 20


def test_the_same_id_in_two_files_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    files = [write_parquet(tmp_path / f"{name}.parquet", ROWS[:5]) for name in "ab"]
    with pytest.raises(ValueError, match=r"row 0 of .*a\.parquet and row 0 of .*b\.parquet"):
        plan_of(checkpoint, files, data__id_column="key")


def test_a_column_of_only_nulls_agrees_with_any_type(checkpoint: Path, tmp_path: Path) -> None:
    rows = [[{"prompt": "x", "tags": tags}] for tags in (None, ["a"], None)]
    data = [write_parquet(tmp_path / f"{i}.parquet", of_file) for i, of_file in enumerate(rows)]
    assert read(plan_of(checkpoint, data))[0] == [row for of_file in rows for row in of_file]


def test_a_part_ends_when_enough_rows_are_taken() -> None:
    batches = [(0, 0, np.array([0, 2, 0, 1])), (0, 4, np.array([1, 0])), (1, 0, np.array([0, 3]))]
    assert cut_counted(batches, 2) == [
        Part(0, 0, 0, 4, 2, 3),
        Part(1, 0, 4, 1, 1, 1),
        Part(2, 1, 0, 2, 1, 3),
    ]


@pytest.mark.parametrize("group_rows", [1, 7, 2500, 10_000])
def test_a_file_is_streamed_with_any_row_group_size(tmp_path: Path, group_rows: int) -> None:
    """Reads forward, over gaps, backward and past the end, compared with the whole table."""
    num = 5000 if group_rows > 7 else 60
    table = pa.table({"a": list(range(num)), "b": [[f"x{i}"] * (i % 3) for i in range(num)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=group_rows)
    rows = ParquetRows(str(tmp_path / "in.parquet"), table.schema)
    runs = [(0, 3), (3, 4), (7, num // 2), (num - 9, 20), (2, 2), (num - 1, 1), (num, 3), (5, 0)]
    for first, count in runs:
        assert rows.read(first, count).equals(table.slice(first, count)), (first, count)


def test_a_huge_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    """A few rows are read of a row group of 160 MB: arrow must hold only a fraction of it."""
    wide = pa.array(["x" * 3990 + str(i) for i in range(40_000)])
    table = pa.table({"prompt": wide})
    pq.write_table(table, tmp_path / "in.parquet", compression="none", use_dictionary=False)
    del table, wide
    pool, before = pa.default_memory_pool(), pa.total_allocated_bytes()
    peak = 0
    rows = ParquetRows(str(tmp_path / "in.parquet"), pa.schema([("prompt", pa.string())]))
    for first in range(0, 40_000, 500):
        assert rows.read(first, 3).num_rows == 3
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 40 << 20, f"{peak >> 20} MiB; {pool.backend_name}"


def test_the_message_names_the_file_if_fewer_rows_are_taken_than_planned(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", ROWS)
    plan = plan_of(checkpoint, data, data__where="num > 9")
    write_parquet(data, [{**row, "num": 0} for row in ROWS])
    with pytest.raises(ValueError, match=r"in\.parquet: of the \d+ rows .* now 0 would be taken"):
        read(plan, "num > 9")
    assert isinstance(plan.files[0], InputFile)
