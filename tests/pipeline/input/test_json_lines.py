"""JSON Lines of every encoding and as arrays; which columns they have, and which are at fault."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.input.columns import Columns, common_columns
from pipeline.input.files import inspect_all
from pipeline.input.json_kinds import MAX_DEPTH, MAX_KEYS
from pipeline.input.json_scan import values_of
from pipeline.input.listing import Found
from pipeline.input.reader import PartReader

ROWS: list[dict[str, Any]] = [
    {"prompt": 'é "]}\n', "n": 1, "deep": {"a": [{"b": "[{"}]}},
    {"prompt": "\\", "n": None, "deep": None},
    {"prompt": "日本", "n": 3, "deep": {"a": []}},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def read(*files: Path, names: list[str] | None = None) -> tuple[Columns, list[dict[str, Any]]]:
    inspected, declared = inspect_all([Found(str(file)) for file in files], [None] * len(files))
    inspected, columns = common_columns(inspected, declared)
    reader = PartReader(inspected, columns.only(names or columns.names))
    tables = [reader.rows(i, 0, file.num_rows) for i, file in enumerate(inspected)]
    return columns, pa.concat_tables(tables).to_pylist()


def put(folder: Path, content: bytes | str, name: str = "in.jsonl") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", [LINES, json.dumps(ROWS), "\n " + json.dumps(ROWS, indent=2)])
def test_rows_are_read_in_every_encoding(
    tmp_path: Path, encoding: str, packed: bool, text: str
) -> None:
    data = text.lstrip().encode(encoding) if encoding[-2:] in "le be" else text.encode(encoding)
    _, rows = read(put(tmp_path, gzip.compress(data) if packed else data))
    assert rows == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, ', "line 1: the array does not end"),
        (b'[{"a": 1}\n{"a": 2}]', "line 2: no comma after an element"),
        (b'[{"a": 1}]\n{"a": 2}', "line 2: the array has ended, and more follows"),
        (b'[\n{"a": 1},\n{"a": "x]', "line 3: the element that begins here does not end"),
        (b'[\n{"a": 1},\n[2]\n]', "line 3: list; must be an object"),
        (b'[\n{"a": 1},\n{"a" 2}\n]', "line 3: not JSON"),
        (b'{\n "a": 1\n}', "line 1: not JSON .* one whole object"),
        (b"PAR1....", "is a Parquet file, not JSON Lines; give it a name that ends in .parquet"),
        (b"PK\x03\x04....", "is a zip archive"),
        (b"\x28\xb5\x2f\xfd....", "is packed with zstd"),
        (b'\xff\xfe{\0"\0', "line 1: not JSON"),
        (b'\xff\xfe{\0"', "cannot be read"),
    ],
)
def test_what_is_no_json_lines_says_what_it_is(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(put(tmp_path, content))
    assert "in.jsonl" in str(error.value)


def test_an_array_is_streamed(tmp_path: Path) -> None:
    """An array of 20 MB in one line is read with a fraction of it in memory."""
    rows = ({"prompt": "x" * 1000, "n": i} for i in range(20_000))
    with (tmp_path / "in.json").open("w") as file:
        file.write("[" + ", ".join(json.dumps(row) for row in rows) + "]")
    (inspected,), declared = inspect_all([Found(str(tmp_path / "in.json"))], [None])
    (inspected,), columns = common_columns([inspected], declared)
    reader = PartReader([inspected], columns.only(["n"]))
    tracemalloc.start()
    assert reader.rows(0, 19_990, 10)["n"].to_pylist() == list(range(19_990, 20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20, f"{peak >> 10} KiB"


def test_the_digest_does_not_depend_on_the_encoding(tmp_path: Path) -> None:
    contents = [LINES.encode(), LINES.encode("utf-8-sig"), gzip.compress(LINES.encode("utf-16"))]
    files = [put(tmp_path, data, f"{i}.jsonl") for i, data in enumerate(contents)]
    inspected, _ = inspect_all([Found(str(file)) for file in files], [None] * 3)
    assert len({file.digest for file in inspected}) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["1", '"two"'],
            r"'x' holds whole numbers \(in.jsonl line 1\) and text \(in.jsonl line 2\)",
        ),
        (["1"] * 1500 + ['"two"'], r"text \(in\.jsonl line 1501\)"),
        (["true", "1"], "true or false .* and whole numbers"),
        (['{"a": 1}', '"x"'], r"text .* and objects"),
        (
            [str(2**60 + 1)] * 1000 + ["0.5"],
            r"beyond 2\*\*53 \(in.jsonl line 1\) and fractions .*1001",
        ),
        (["0.5", str(-(2**53) - 1)], r"beyond 2\*\*53 \(in.jsonl line 2\)"),
        ([str(2**63)], r"whole numbers beyond 64 bits \(in.jsonl line 1\)"),
        (["1", "7" * 5000], r"whole numbers beyond 64 bits \(in.jsonl line 2\)"),
        (
            ["[" * 3000 + "]" * 3000, '"x"'],
            r"text \(in.jsonl line 2\) and lists \(in.jsonl line 1\)",
        ),
    ],
)
def test_a_column_without_a_type_stops_only_who_needs_it(
    tmp_path: Path, values: list[str], message: str
) -> None:
    text = "".join(f'{{"prompt": "p", "x": {value}}}\n' for value in values)
    columns, rows = read(put(tmp_path, text), names=["prompt"])
    assert rows == [{"prompt": "p"}] * len(values)
    assert columns.names == ["prompt", "x"]
    with pytest.raises(ValueError, match=message) as error:
        columns.carried(columns.names)
    assert "in.jsonl: the column 'x" in str(error.value)
    assert str(error.value).endswith("or leave it out: data.carry=[prompt]")


def test_numbers_that_a_double_holds_exactly_are_widened(tmp_path: Path) -> None:
    _, rows = read(put(tmp_path, f'{{"x": {2**53}}}\n{{"x": 0.5}}\n{{"x": null}}\n'))
    assert rows == [{"x": 2.0**53}, {"x": 0.5}, {"x": None}]


DEEP = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([{f"w{i}": 1} for i in range(MAX_KEYS + 1)], f"line {MAX_KEYS + 1}"),
        ([{f"w{i}": 1} for i in range(3000)], "more than 256 different keys"),
        ([{"of": [{f"w{i}": i} for i in range(400)]}, {"of": None}], "different keys"),
        ([{f"w{i}": {f"v{i}": [1]} for i in range(200)}], "different keys"),
        ([{}, {}], "objects without a key"),
        ([{"a": {"b": []}}, {"a": {"b": [{}]}}], "objects without a key"),
        ([json.loads("[" * 40 + "]" * 40), []], f"nested more than {MAX_DEPTH} deep"),
        ([{"a": [1]}, {"a": [{"b": 1}]}], "'x.a[]' holds whole numbers (in.jsonl line 1) and obj"),
        ([{"a": {}}, {"a": "x"}], "'x.a' holds text (in.jsonl line 2) and objects"),
        ([[{"c": "hi"}], [{"c": [{"text": "hi"}]}]], "'x[].c' holds text (in.jsonl line 1) and"),
        ([{"a": 2**60}, {"a": 0.5}], "no number type holds exactly together"),
        ([{"é": "日本", "half": "\ud83d"}, {}, *({str(i): 0.1} for i in range(300))], "keys"),
    ],
)
def test_objects_whose_keys_are_data_are_kept_as_json_text(
    tmp_path: Path, values: list[Any], reason: str
) -> None:
    rows = [{"prompt": "p", "x": value} for value in [*values, None]]
    columns, read_rows = read(put(tmp_path, "".join(json.dumps(row) + "\n" for row in rows)))
    assert columns.types["x"] == pa.string()
    assert reason in columns.texts["x"]
    assert read_rows[-1]["x"] is None
    assert [json.loads(row["x"]) for row in read_rows[:-1]] == values


def test_nesting_without_end_is_kept_letter_by_letter(tmp_path: Path) -> None:
    text = f'{{"x": {DEEP}, "prompt": "a\\"b"}}\n{{"prompt": "c", "x": [1, 2.50]}}\n'
    _, rows = read(put(tmp_path, text))
    assert rows == [{"x": DEEP, "prompt": 'a"b'}, {"x": "[1, 2.5]", "prompt": "c"}]


def test_as_many_keys_as_allowed_are_a_struct(tmp_path: Path) -> None:
    rows = [{"x": {f"w{i}": i}} for i in range(MAX_KEYS)]
    columns, _ = read(put(tmp_path, "".join(json.dumps(row) + "\n" for row in rows)))
    assert pa.types.is_struct(columns.types["x"])
    assert columns.texts == {}


def test_keys_of_several_files_are_counted_together(tmp_path: Path) -> None:
    files = [
        put(
            tmp_path,
            f'{{"x": {{{", ".join(f"{chr(34)}{name}{i}{chr(34)}: 1" for i in range(200))}}}}}',
            f"{name}.jsonl",
        )
        for name in "ab"
    ]
    assert pa.types.is_struct(read(files[0])[0].types["x"])
    columns, rows = read(*files)
    assert columns.types["x"] == pa.string()
    assert [len(json.loads(row["x"])) for row in rows] == [200, 200]


def test_text_that_is_not_unicode_costs_only_its_cell(tmp_path: Path) -> None:
    lines = [b'{"x": "caf\xe9", "y": ["a"]}', b'{"x": "\\ud83d", "y": ["\xff"]}', b'{"x": "ok"}']
    file = put(tmp_path, b"\n".join(lines))
    (inspected,), declared = inspect_all([Found(str(file))], [None])
    (inspected,), columns = common_columns([inspected], declared)
    table = PartReader([inspected], columns.only(columns.names)).rows(0, 0, 3)
    as_bytes = table["x"].cast(pa.binary()).to_pylist()
    assert as_bytes == [b"caf\xe9", b"\xed\xa0\xbd", b"ok"]
    assert table["y"].cast(pa.list_(pa.binary())).to_pylist() == [[b"a"], [b"\xff"], None]


@pytest.mark.parametrize("text", ["[]", '{"a" 1}', '{"a": 1 "b": 2}', '{"a": "x', "{a: 1}", "{"])
def test_the_values_of_something_else_than_an_object_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^no|not an object"):
        values_of(text)


def test_the_texts_of_an_objects_values() -> None:
    text = ' {"a" : [1, {"}": "]"}] ,\n"\\u0062":"\\"", "c": -1.5e3,"d":null } '
    assert values_of(text) == {"a": '[1, {"}": "]"}]', "b": '"\\""', "c": "-1.5e3", "d": "null"}
    assert values_of("{}") == {}


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.json.gz"])
def test_a_file_that_was_unpacked_under_its_old_name_is_read(tmp_path: Path, name: str) -> None:
    assert read(put(tmp_path, LINES, name))[1] == ROWS


@pytest.mark.parametrize(
    ("line", "kind"), [("null", "null"), ('"a"', "text"), ("1.5", "number"), ("true", "true or f")]
)
def test_a_line_that_is_no_object_says_what_it_is(tmp_path: Path, line: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"line 2: {kind}.*; must be an object"):
        read(put(tmp_path, f'{{"a": 1}}\n{line}\n'))
