"""Which files data.path names: key=value folders, run folders below it, and a run itself."""

import json
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.columns import common_columns
from pipeline.input.files import inspect_all
from pipeline.input.listing import list_inputs
from pipeline.input.reader import PartReader
from tests.checkpoints import prompts, write_json_lines, write_parquet


def write_run(folder: Path, done: bool = True) -> Path:
    """What a job leaves in its run folder, as far as a listing looks at it."""
    for name in ("data", "stats", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "config.yaml").write_text("")
    write_parquet(folder / "data" / "part-00000.parquet", prompts(2))
    write_parquet(folder / "stats" / "part-00000.parquet", prompts(1))
    if done:
        counts = {"num_parts": 1, "num_failed": 0, "num_rows_in": 2, "num_rows_out": 2}
        (folder / "summary.json").write_text(json.dumps(counts))
    return folder


@pytest.mark.parametrize("output", ["in/run", "elsewhere", "in/deep/er"])
@pytest.mark.parametrize("pattern", ["in", "in/**/*.parquet"])
def test_run_folders_below_the_input_are_no_input(
    tmp_path: Path, output: str, pattern: str
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    files = [write_parquet(tmp_path / "in" / name, prompts(1)) for name in ("a.parquet", "b.pq")]
    write_run(tmp_path / "in" / "run")
    write_run(tmp_path / "in" / "deep" / "er", done=False)
    listing = list_inputs(str(tmp_path / pattern), str(tmp_path / output))
    assert listing.paths == [
        str(file) for file in files if "*" not in pattern or file.suffix != ".pq"
    ]
    (note,) = listing.notes
    assert "in/deep/er" in note
    assert "in/run: run folders are no input" in note


def test_the_jobs_own_output_is_left_out_before_it_has_a_plan(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "a.parquet", prompts(1))
    (tmp_path / "out" / "data").mkdir(parents=True)
    write_parquet(tmp_path / "out" / "data" / "part-00000.parquet", prompts(1))
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for pattern in (str(tmp_path), f"{tmp_path}/**/*.parquet", f"{tmp_path}/*/data/*.parquet"):
        wanted = [str(data)] if "*" not in pattern or "**" in pattern else []
        if wanted:
            assert list_inputs(pattern, str(tmp_path / "link")).paths == wanted
        else:
            with pytest.raises(ValueError, match="no file that ends in"):
                list_inputs(pattern, str(tmp_path / "out"))


def test_a_folder_with_a_run_json_of_somebody_else_is_input(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "a.parquet", prompts(1))
    (tmp_path / "run.json").write_text("{}")
    assert list_inputs(str(tmp_path)).paths == [str(data)]


def test_files_of_a_run_may_still_be_named(tmp_path: Path) -> None:
    write_run(tmp_path / "run", done=False)
    part = str(tmp_path / "run" / "data" / "part-00000.parquet")
    for pattern in (part, f"{tmp_path}/run/data", f"{tmp_path}/*/data/*.parquet"):
        (found,) = list_inputs(pattern, str(tmp_path / "out")).files
        assert (found.path, found.run) == (part, None)


def test_an_unfinished_run_and_the_jobs_own_output_cannot_be_read_as_a_run(tmp_path: Path) -> None:
    run = str(write_run(tmp_path / "run", done=False))
    with pytest.raises(ValueError, match=r"data\.path=.*run: this run is not finished.*run/data"):
        list_inputs(run, str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"is the job's own output; give another output"):
        list_inputs(run, run)


def test_a_run_on_a_store_is_read_too(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "run"), "/bucket/runs/mine", recursive=True)
    (found,) = list_inputs("memory://bucket/runs/mine").files
    assert found.path.endswith("bucket/runs/mine/data/part-00000.parquet")
    assert found.run is not None
    assert found.run.name == "mine"


def test_two_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / side / "run")) for side in ("x", "y")]
    with pytest.raises(ValueError, match="two runs are called 'run'"):
        list_inputs(runs)


def rows_of(path: str, *columns: str) -> tuple[pa.Schema, list[dict[str, object]]]:
    found = list_inputs(path).files
    files, declared = inspect_all(found, [None] * len(found))
    files, common = common_columns(files, declared)
    schema = common.only(columns or common.names)
    reader = PartReader(files, schema)
    tables = [reader.rows(i, 0, file.num_rows) for i, file in enumerate(files)]
    return schema, pa.concat_tables(tables).to_pylist()


def write_keys(folder: Path, *folders: str) -> None:
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"prompt": [name]}), folder / name / "a.parquet")


@pytest.mark.parametrize(
    ("folders", "column", "kind", "values"),
    [
        (["lang=c", "lang=py"], "lang", pa.string(), ["c", "py"]),
        (["n=01", "n=12"], "n", pa.int32(), [1, 12]),
        (["n=-1", "n=3000000000"], "n", pa.int64(), [-1, 3000000000]),
        (["n=1", "n=x"], "n", pa.string(), ["1", "x"]),
        (["l=C%2B%2B", "l=a%20b"], "l", pa.string(), ["C++", "a b"]),
        (["k=__HIVE_DEFAULT_PARTITION__", "k=7"], "k", pa.int32(), [None, 7]),
        (["k=a=b", "k="], "k", pa.string(), ["", "a=b"]),
        (["x/k=1/y", "x/k=2"], "k", pa.int32(), [1, 2]),
        (["plain", "k=2"], "k", pa.int32(), [2, None]),
    ],
)
def test_key_value_folders_are_columns(
    tmp_path: Path, folders: list[str], column: str, kind: pa.DataType, values: list[object]
) -> None:
    write_keys(tmp_path, *folders)
    schema, rows = rows_of(str(tmp_path))
    assert schema.field(column).type == kind
    assert sorted((row[column] for row in rows), key=str) == sorted(values, key=str)
    assert rows_of(str(tmp_path), column)[1] == [{column: row[column]} for row in rows]


def test_their_types_are_those_that_arrow_infers(tmp_path: Path) -> None:
    write_keys(tmp_path, "n=01/s=a", "n=2/s=3")
    ours = rows_of(str(tmp_path))[0]
    theirs = pq.read_table(tmp_path).schema
    for name in ("n", "s"):
        kind = theirs.field(name).type
        assert ours.field(name).type == (kind.value_type if pa.types.is_dictionary(kind) else kind)


def test_only_folders_below_the_path_count_and_a_files_own_column_stays(tmp_path: Path) -> None:
    place = tmp_path / "out=1"
    write_keys(place, "lang=py")
    write_json_lines(place / "lang=py" / "b.jsonl", [{"prompt": "x", "lang": "own"}])
    schema, rows = rows_of(str(place))
    assert schema.names == ["prompt", "lang"]
    assert [row["lang"] for row in rows] == ["py", "own"]
    for path in (f"{place}/lang=*/*.parquet", f"{place}/lang=py/a.parquet", f"{place}/lang=py"):
        has_key = (
            "lang" in rows_of(path, *(["prompt", "lang"] if "*" in path else ["prompt"]))[0].names
        )
        assert has_key == ("*" in path)


def test_the_note_about_many_run_folders_is_short(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", prompts(1))
    for number in range(20):
        write_run(tmp_path / f"run{number}")
    listing = list_inputs(str(tmp_path))
    assert listing.paths == [os.fspath(tmp_path / "a.parquet")]
    assert len(listing.notes[0]) < 400


@pytest.mark.parametrize("pattern", ["runs", "runs/**/*.parquet"])
def test_a_folder_of_runs_alone_says_that_they_were_left_out(tmp_path: Path, pattern: str) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name)
    message = r"left out .*runs/a, .*runs/b: run folders are no input; there is no .* the folders"
    with pytest.raises(ValueError, match=message):
        list_inputs(str(tmp_path / pattern))
    named = [str(tmp_path / "runs" / name) for name in ("a", "b")]
    assert len(list_inputs(named).files) == 2


def test_a_glob_that_matches_only_folders_says_so(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    write_parquet(tmp_path / "in" / "a" / "x.parquet", prompts(1))
    with pytest.raises(ValueError, match=r"matches only folders, such as .*in/a; there is no file"):
        list_inputs(str(tmp_path / "in" / "*"))
