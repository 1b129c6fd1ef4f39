"""The input files: how they are found and inspected, and the errors for those that are wrong."""

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.columns import Columns, common_columns
from pipeline.input.files import Declared, InputFile
from pipeline.input.files import inspect as inspect_found
from pipeline.input.listing import Found, list_inputs, names_of
from tests.checkpoints import prompts, write_json_lines, write_parquet


def inspect(path: str, name: str) -> tuple[InputFile, Declared]:
    return inspect_found(Found(path), name)


def columns_of(*paths: Path) -> Columns:
    inspected = [inspect(str(path), path.stem) for path in paths]
    return common_columns([file for file, _ in inspected], [its for _, its in inspected])[1]


def types_in(path: Path) -> dict[str, pa.DataType]:
    return columns_of(path).types


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    write_parquet(tmp_path / "b.parquet", prompts(5))
    write_parquet(tmp_path / "a.parquet", prompts(3))
    write_parquet(tmp_path / "sub" / "a.parquet", prompts(4))
    write_parquet(tmp_path / ".hidden.parquet", prompts(1))
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "STATE.JSON").write_text("{}")
    (tmp_path / "README.md").write_text("")
    return tmp_path


def test_files_of_a_folder_a_glob_and_a_list_are_sorted_without_duplicates(folder: Path) -> None:
    a, b, sub_a = (str(folder / name) for name in ("a.parquet", "b.parquet", "sub/a.parquet"))
    assert list_inputs(str(folder)).paths == [a, b, sub_a]
    assert list_inputs(f"{folder}/*.parquet").paths == [a, b]
    assert list_inputs([b, str(folder)]).paths == [b, a, sub_a]
    assert list_inputs(a).paths == [a]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.parquet", "no such file or folder"),
        ("*.parquet.zst", "no file that ends in one of .parquet"),
        ("README.md", "no file that ends in one of .parquet"),
        ("empty", "no file that ends in one of .parquet"),
        ("gopher://host/x.parquet", "Protocol not known"),
    ],
)
def test_a_path_without_input_is_refused(folder: Path, path: str, message: str) -> None:
    (folder / "empty").mkdir()
    entry = path if "://" in path else str(folder / path)
    with pytest.raises(ValueError, match=r"data\.path=") as error:
        list_inputs(entry)
    assert path in str(error.value)
    assert message in str(error.value)


def test_names_are_stems_or_the_end_of_the_path_that_makes_them_unique() -> None:
    paths = ["/d/x/train.parquet", "/d/y/train.parquet", "/d/y/test.jsonl.gz", "hf://d/a.b.json"]
    assert names_of(paths) == ["x/train.parquet", "y/train.parquet", "test", "a.b"]
    assert names_of(["/d/a.jsonl", "/d/a.parquet"]) == ["a.jsonl", "a.parquet"]
    twins = ["s3://b/a.parquet", "gs://b/a.parquet", "s3://b/c.parquet"]
    assert names_of(twins) == [*twins[:2], "c"]


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.json"])
def test_json_lines_have_the_columns_of_all_their_lines(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a"},
        {"prompt": None, "x": 1},
        {"x": 2.5, "y": {"z": ["q"]}},
    ]
    path = write_json_lines(tmp_path / name, rows)
    assert inspect(str(path), "in")[0].num_rows == 3
    y = pa.struct([("z", pa.list_(pa.string()))])
    assert types_in(path) == {"prompt": pa.string(), "x": pa.float64(), "y": y}


def test_types_are_widened_over_batches_of_lines(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"x": 1}] * 1000 + [{"x": 0.5, "late": "z"}]
    path = write_json_lines(tmp_path / "in.jsonl", rows)
    assert types_in(path) == {"x": pa.float64(), "late": pa.string()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ('{"a": 1}\n\n[1]\n', "line 3: list; must be an object"),
        ('{"a": 1}\n{"\xe9": 2}\n', r"line 2: the key .* is not valid Unicode"),
        ('{"a": {"b": 1}}\n{"a": {"\\ud83d": 2}}', r"line 2: the key .* half a surrogate"),
    ],
)
def test_bad_lines_are_refused_with_their_line_number(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message) as error:
        inspect(str(file), "bad")
    assert "bad.jsonl" in str(error.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    packed = write_json_lines(tmp_path / "truncated.jsonl.gz", prompts(500))
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"truncated.jsonl.gz: cannot be read"):
        inspect(str(packed), "in")


def test_files_at_urls_are_listed_and_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in.parquet", prompts(5))
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.parquet", (tmp_path / "in.parquet").read_bytes())
    store.pipe("/bucket/b.jsonl", b'{"prompt": "x"}')
    paths = list_inputs(["memory://bucket/*.parquet", "memory://bucket"]).paths
    assert paths == ["memory:///bucket/a.parquet", "memory:///bucket/b.jsonl"]
    inspected = [inspect(path, name) for path, name in zip(paths, names_of(paths), strict=True)]
    assert [(file.name, file.num_rows) for file, _ in inspected] == [("a", 5), ("b", 1)]
    with pytest.raises(ValueError, match=r"memory://bucket/c\.jsonl: no such file"):
        list_inputs("memory://bucket/c.jsonl")


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    one = inspect(str(write_parquet(tmp_path / "1.parquet", prompts(9))), "f")[0]
    same = inspect(str(write_parquet(tmp_path / "2.parquet", prompts(9))), "f")[0]
    other = inspect(str(write_parquet(tmp_path / "3.parquet", prompts(9, first=1))), "f")[0]
    assert one.digest == same.digest != other.digest


def columns_of_schemas(files: dict[str, pa.Schema], folder: Path) -> Columns:
    for name, schema in files.items():
        pq.write_table(schema.empty_table(), folder / name)
    return columns_of(*(folder / name for name in files))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([("prompt", pa.string()), ("id", pa.string())], "'id': string in .*2.*, int64 in .*1"),
        ([("prompt", pa.string())], "'id': no such column in .*2.*, int64 in .*1"),
        ([("prompt", pa.string()), ("id", pa.int64()), ("q", pa.int8())], "'q': int8 in .*2"),
    ],
)
def test_files_must_agree_on_columns_and_types(
    tmp_path: Path, other: list[tuple[str, pa.DataType]], message: str
) -> None:
    first = pa.schema([("prompt", pa.string()), ("id", pa.int64())])
    columns = columns_of_schemas({"1.parquet": first, "2.parquet": pa.schema(other)}, tmp_path)
    assert columns.only(["prompt"]).names == ["prompt"], "a column that files agree on is read"
    with pytest.raises(ValueError, match=message):
        columns.only(columns.names)


def test_the_order_of_columns_may_differ(tmp_path: Path) -> None:
    first = pa.schema([("prompt", pa.string()), ("id", pa.int64())])
    second = pa.schema([first.field("id"), first.field("prompt")])
    columns = columns_of_schemas({"1.parquet": first, "2.parquet": second}, tmp_path)
    assert columns.only(columns.names) == first


def test_json_lines_files_may_lack_columns_and_are_widened_together(tmp_path: Path) -> None:
    files = [
        write_json_lines(tmp_path / "1.jsonl", [{"prompt": "a", "x": 1}]),
        write_json_lines(tmp_path / "2.jsonl", [{"prompt": "b", "x": 0.5, "y": "q"}]),
    ]
    wanted = {"prompt": pa.string(), "x": pa.float64(), "y": pa.string()}
    assert columns_of(*files).types == wanted


def test_the_digest_changes_with_a_row_even_if_the_file_size_does_not(tmp_path: Path) -> None:
    digests = set()
    for word in ("aaaa", "bbbb"):
        rows = {"prompt": ["0000", word, "zzzz"]}
        file = tmp_path / f"{word}.parquet"
        pq.write_table(pa.table(rows), file, compression="none")
        digests.add(inspect(str(file), "x")[0].digest)
    assert len(digests) == 2


def test_files_may_differ_in_whether_a_column_is_nullable(tmp_path: Path) -> None:
    strict = pa.schema([pa.field("prompt", pa.string(), nullable=False)])
    pq.write_table(pa.table({"prompt": ["a"]}, schema=strict), tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": ["b", None]}), tmp_path / "b.parquet")
    columns = columns_of(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert columns.field("prompt").nullable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PAR1 and no more", "is cut short or damaged; copy or write it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "`git lfs pull`"),
        (b"\x28\xb5\x2f\xfd....", "is packed with zstd, not Parquet; unpack it"),
        (b'\n{"prompt": "a"}\n', "looks like JSON, not Parquet; give it a name that ends in"),
        (b"prompt\nhello\n", "is not a Parquet file; write it again, or leave it out"),
    ],
)
def test_what_is_no_parquet_says_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "in.parquet"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        inspect(str(file), "in")
    assert str(error.value).startswith(f"data.path={file}: ")
