"""Reading parts: the same rows from every format and in any order; ids and seeds never change."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.reader import PartReader, seed_of, seed_of_sample
from pipeline.plan.build import make_plan
from pipeline.plan.run_json import Plan
from tests.checkpoints import job, prompts, write_json_lines, write_parquet


def plan_of(checkpoint: Path, data: Path | list[Path], **changes: object) -> Plan:
    return make_plan(job(checkpoint, data, Path("run"), **changes), checkpoint)


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl", "in.jsonl.gz"])
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1), slice(1, None, 2)])
def test_each_part_has_its_rows_in_every_format_and_reading_order(
    checkpoint: Path, tmp_path: Path, name: str, order: slice
) -> None:
    """With row groups of 3 rows and parts of 4, parts span several row groups."""
    rows = prompts(30)
    if name == "in.parquet":
        data = write_parquet(tmp_path / name, rows, row_group_size=3)
    else:
        data = write_json_lines(tmp_path / name, rows)
    plan = plan_of(checkpoint, data)
    reader = PartReader(plan.files, plan.read_schema)
    for part in plan.parts[order]:
        wanted = rows[part.first_row : part.first_row + part.num_rows]
        read, ids, _ = reader.read(part)
        assert read.to_pylist() == wanted
        assert ids == [f"in:{part.first_row + i}" for i in range(part.num_rows)]


def test_several_files_are_read_one_after_another(checkpoint: Path, tmp_path: Path) -> None:
    data = [
        write_parquet(tmp_path / "a.parquet", prompts(5)),
        write_json_lines(tmp_path / "b.jsonl", prompts(6, first=5)),
    ]
    plan = plan_of(checkpoint, data)
    reader = PartReader(plan.files, plan.read_schema)
    read = [reader.read(part) for part in plan.parts]
    assert [row for rows, _, _ in read for row in rows.to_pylist()] == prompts(11)
    ids = [row_id for _, part_ids, _ in read for row_id in part_ids]
    assert ids == [f"a:{i}" for i in range(5)] + [f"b:{i}" for i in range(6)]


def test_only_the_columns_needed_are_read(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(3))
    plan = plan_of(checkpoint, data, data__carry=["task_id"])
    read, _, _ = PartReader(plan.files, plan.read_schema).read(plan.parts[0])
    assert read.column_names == ["task_id", "prompt"]


def test_carried_types_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": pa.array(["a", None], pa.large_string()),
            "when": pa.array([1, 2], pa.timestamp("ms", "UTC")),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "nothing": pa.nulls(2),
            "blob": pa.array([b"\xff", None]),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    plan = plan_of(checkpoint, tmp_path / "in.parquet")
    read, _, _ = PartReader(plan.files, plan.read_schema).read(plan.parts[0])
    assert read.schema.types == table.schema.types
    assert read.to_pylist() == table.to_pylist()


def test_a_file_that_was_shortened_after_planning_stops_the_job(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_json_lines(tmp_path / "in.jsonl", prompts(8))
    plan = plan_of(checkpoint, data)
    write_json_lines(data, prompts(6))
    reader = PartReader(plan.files, plan.read_schema)
    reader.read(plan.parts[0])
    with pytest.raises(ValueError, match=r"ends before row 8; it was changed.*had 8 rows"):
        reader.read(plan.parts[1])
    data.unlink()
    with pytest.raises(ValueError, match=r"data\.path=.*cannot be read"):
        PartReader(plan.files, plan.read_schema).read(plan.parts[0])


def test_an_id_that_has_become_null_is_named(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(8))
    plan = plan_of(checkpoint, data, data__id_column="task_id")
    rows = prompts(8)
    rows[5]["task_id"] = None
    write_parquet(data, rows)
    reader = PartReader(plan.files, plan.read_schema, None, "task_id")
    reader.read(plan.parts[0])
    with pytest.raises(
        ValueError, match=r"'task_id': now null in row 5 of .*in\.parquet; .*restore"
    ):
        reader.read(plan.parts[1])


def test_a_column_that_is_gone_or_has_changed_is_named(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "n": 1}])
    plan = plan_of(checkpoint, data)
    for changed, message in (
        ({"prompt": "x"}, "has no column 'n' now"),
        ({"prompt": "x", "n": "a"}, "column 'n' of type string cannot be read as int64"),
    ):
        write_parquet(data, [changed])
        with pytest.raises(ValueError, match=message):
            PartReader(plan.files, plan.read_schema).read(plan.parts[0])
    lines = write_json_lines(tmp_path / "in.jsonl", [{"prompt": "x", "n": 1}])
    plan = plan_of(checkpoint, lines)
    write_json_lines(lines, [{"prompt": "x", "n": "a"}])
    with pytest.raises(ValueError, match=r"column 'n' of lines 1 to 1 is not of type int64"):
        PartReader(plan.files, plan.read_schema).read(plan.parts[0])


def test_seeds_have_63_bits_and_never_change() -> None:
    """The number is pinned: another one would change the rows of every sampled run."""
    assert seed_of(0, "in:0", 0) == 7246054906908696213
    drawn = {
        seed_of(run, f"in:{row}", i) for run in range(3) for row in range(30) for i in range(3)
    }
    assert len(drawn) == 270
    assert all(0 <= seed < 2**63 for seed in drawn)


def test_a_rows_own_seed_is_that_of_its_first_sample_and_derives_the_others() -> None:
    assert seed_of_sample(-7, 0) == -7
    assert seed_of_sample(7, 1) == 7631765994772377903
    drawn = {seed_of_sample(seed, i) for seed in (-(2**63), 0, 7, 2**63 - 1) for i in range(50)}
    assert len(drawn) == 200
    assert all(-(2**63) <= seed < 2**63 for seed in drawn)
