"""Types that mean the same are read as one, and every value stays what it was."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.casting import cast
from pipeline.input.columns import common_columns
from pipeline.input.files import inspect_all
from pipeline.input.listing import Found
from pipeline.input.reader import PartReader
from pipeline.input.types import merged, plain
from tests.checkpoints import write_json_lines

TEXT = pa.string()
WORDS = pa.array(["a", "b", None])


def struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


SAME = {  # two types, and the one that holds both
    "texts": (TEXT, pa.large_string(), pa.large_string()),
    "indices of other widths": (
        pa.dictionary(pa.int8(), TEXT),
        pa.dictionary(pa.int16(), TEXT),
        pa.dictionary(pa.int32(), TEXT),
    ),
    "a dictionary and its values": (pa.dictionary(pa.int8(), TEXT), TEXT, TEXT),
    "lists": (pa.list_(pa.int8()), pa.large_list(pa.int16()), pa.large_list(pa.int16())),
    "a fixed length": (pa.list_(pa.int8(), 2), pa.list_(pa.int8()), pa.list_(pa.int8())),
    "always null": (pa.null(), struct(a=TEXT), struct(a=TEXT)),
    "lists always empty": (pa.list_(pa.null()), pa.list_(TEXT), pa.list_(TEXT)),
    "null deep inside": (
        pa.list_(struct(a=pa.list_(pa.null()), b=TEXT)),
        pa.list_(struct(b=pa.null(), a=pa.list_(struct(z=pa.int8())))),
        pa.list_(struct(a=pa.list_(struct(z=pa.int8())), b=TEXT)),
    ),
    "a field that one lacks": (struct(a=TEXT), struct(b=TEXT), struct(a=TEXT, b=TEXT)),
    "whole numbers": (pa.int32(), pa.int64(), pa.int64()),
    "signs": (pa.uint8(), pa.int8(), pa.int16()),
    "fractions": (pa.float32(), pa.float64(), pa.float64()),
    "small whole numbers and fractions": (pa.int32(), pa.float32(), pa.float64()),
    "units of time": (
        pa.timestamp("ms", "UTC"),
        pa.timestamp("us", "UTC"),
        pa.timestamp("us", "UTC"),
    ),
    "decimals": (pa.decimal128(5, 2), pa.decimal128(9, 4), pa.decimal128(9, 4)),
    "maps": (pa.map_(TEXT, pa.null()), pa.map_(TEXT, pa.int8()), pa.map_(TEXT, pa.int8())),
    "fixed width": (pa.binary(2), pa.binary(), pa.binary()),
    "JSON": (pa.json_(), TEXT, TEXT),
}


@pytest.mark.parametrize("name", SAME)
def test_types_that_mean_the_same_have_one_type_in_either_order(name: str) -> None:
    one, other, both = SAME[name]
    assert merged(one, other) == both
    swapped = merged(other, one)
    assert swapped is not None
    for kind in (one, other):
        for wanted in (both, swapped):
            assert pa.array([None], kind).cast(wanted).type == wanted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, pa.int64()),
        (pa.int64(), pa.float64()),
        (pa.uint64(), pa.int8()),
        (pa.bool_(), pa.int8()),
        (pa.timestamp("ms"), pa.timestamp("ns")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (struct(a=TEXT), struct(a=pa.int8())),
        (pa.list_(TEXT), TEXT),
        (pa.decimal256(76, 0), pa.decimal256(76, 76)),
    ],
)
def test_types_whose_values_do_not_fit_into_one_have_none(
    one: pa.DataType, other: pa.DataType
) -> None:
    assert merged(one, other) is None
    assert merged(other, one) is None


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (pa.string_view(), TEXT),
        (pa.binary_view(), pa.binary()),
        (pa.list_view(pa.string_view()), pa.list_(TEXT)),
        (pa.large_list_view(TEXT), pa.large_list(TEXT)),
        (struct(a=pa.list_view(pa.int8())), struct(a=pa.list_(pa.int8()))),
        (pa.map_(TEXT, pa.string_view()), pa.map_(TEXT, TEXT)),
        (pa.list_(pa.string_view(), 2), pa.list_(TEXT, 2)),
        (pa.dictionary(pa.int8(), pa.string_view()), pa.dictionary(pa.int8(), TEXT)),
    ],
)
def test_views_are_read_as_what_they_view(kind: pa.DataType, wanted: pa.DataType) -> None:
    assert plain(kind) == wanted


def read_all(*paths: Path) -> pa.Table:
    files, declared = inspect_all([Found(str(path)) for path in paths], [None] * len(paths))
    files, columns = common_columns(files, declared)
    reader = PartReader(files, columns.only(columns.names))
    return pa.concat_tables(reader.rows(i, 0, file.num_rows) for i, file in enumerate(files))


@pytest.mark.parametrize(
    "arrays",
    [
        [WORDS, WORDS.cast(pa.large_string()), WORDS.dictionary_encode(), pa.nulls(2)],
        [WORDS.cast(pa.string_view()), WORDS, pa.array(["x"] * 300).dictionary_encode()],
        [pa.array([[1], None, []], pa.list_view(pa.int8())), pa.array([[2**40]])],
        [pa.array([[1, 2]], pa.list_(pa.int32(), 2)), pa.array([[], [None]], pa.list_(pa.null()))],
        [pa.array([{"a": None, "b": [1]}]), pa.array([{"b": [], "a": {"c": "x"}}])],
        [pa.array([2**53, -(2**53)], pa.int64()), pa.array([1], pa.int8())],
        [pa.array([1.5, None], pa.float32()), pa.array([2**31 - 1], pa.int32())],
        [
            pa.array([[("k", "v")]], pa.map_(TEXT, pa.string_view())),
            pa.nulls(1, pa.map_(TEXT, TEXT)),
        ],
    ],
)
@pytest.mark.parametrize("turn", [slice(None), slice(None, None, -1)])
def test_the_values_of_all_files_are_kept(
    tmp_path: Path, arrays: list[pa.Array], turn: slice
) -> None:
    arrays = arrays[turn]
    files = [tmp_path / f"{i}.parquet" for i in range(len(arrays))]
    for file, array in zip(files, arrays, strict=True):
        pq.write_table(pa.table({"x": array}), file)
    rows = read_all(*files)["x"].to_pylist()
    wanted = [value for array in arrays for value in array.to_pylist()]
    assert rows == [_with_all_fields(value, rows) for value in wanted]


def _with_all_fields(value: Any, rows: list[Any]) -> Any:
    """Fields that a file lacks are null there."""
    return {**dict.fromkeys(rows[0]), **value} if isinstance(value, dict) else value


def test_whole_numbers_of_json_lines_fit_into_doubles_if_they_are_small(tmp_path: Path) -> None:
    doubles = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [0.5]}), doubles)
    small = write_json_lines(tmp_path / "b.jsonl", [{"x": 2**53}])
    assert read_all(doubles, small)["x"].to_pylist() == [0.5, 2.0**53]
    assert read_all(small, doubles)["x"].to_pylist() == [2.0**53, 0.5]
    large = write_json_lines(tmp_path / "c.jsonl", [{"x": 2**53 + 1}])
    with pytest.raises(ValueError, match=r"'x': int64 in .*c\.jsonl, double in .*a\.parquet"):
        read_all(doubles, large)
    whole = tmp_path / "d.parquet"
    pq.write_table(pa.table({"x": [2**60 + 1]}), whole)
    with pytest.raises(ValueError, match=r"'x': double in .*a\.parquet, int64 in "):
        read_all(small, whole, doubles)


def test_the_file_that_a_type_comes_from_is_blamed(tmp_path: Path) -> None:
    """The first file has only nulls; the second says text, the third numbers."""
    columns = [pa.nulls(1), pa.array(["a"]), pa.array([1])]
    files = [tmp_path / f"{i}.parquet" for i in range(3)]
    for file, column in zip(files, columns, strict=True):
        pq.write_table(pa.table({"x": column}), file)
    with pytest.raises(ValueError, match=r"'x': int64 in .*2\.parquet, string in .*1\.parquet"):
        read_all(*files)


VIEWS = [
    ([[1], None, []], pa.list_view(pa.int8())),
    ([["a", None], [], None, ["b"]], pa.large_list_view(pa.string_view())),
    ([[[1], None], None, [[]]], pa.list_view(pa.list_view(pa.int8()))),
    ([{"a": [1]}, None, {"a": None}], pa.struct([("a", pa.list_view(pa.int8()))])),
    ([[{"a": [1]}], [None], None], pa.list_(pa.struct([("a", pa.list_view(pa.int8()))]))),
    ([[("k", [1, 2])], None], pa.map_(pa.string(), pa.list_view(pa.int8()))),
]


@pytest.mark.parametrize(("values", "kind"), VIEWS)
@pytest.mark.parametrize("part", [slice(None), slice(1, None), slice(0, 2)])
def test_lists_made_of_views_are_valid(values: list[Any], kind: pa.DataType, part: slice) -> None:
    column = pa.chunked_array([pa.array(values, kind)[part], pa.array(values[:1], kind)])
    made = cast(column, plain(kind))
    made.validate(full=True)
    assert made.to_pylist() == [*values[part], values[0]]


def test_a_view_whose_lists_are_out_of_order_and_overlap() -> None:
    view = pa.ListViewArray.from_arrays([2, 0, 1], [1, 2, 2], pa.array([1, 2, 3]))
    made = cast(pa.chunked_array([view]), pa.list_(pa.int64()))
    made.validate(full=True)
    assert made.to_pylist() == view.to_pylist() == [[3], [1, 2], [2, 3]]
