"""Text that is not valid UTF-8.

Programs in other languages write it into Parquet unchecked, and many readers (polars, duckdb)
refuse a whole file for one such cell. So it never goes to the output: each wrong byte becomes
U+FFFD there, and the worker's log says in which rows. In a prompt it is the row's error
(pipeline/generate/cells.py).
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from pipeline.input.errors import InputError
from pipeline.input.types import TEXT, as_bytes, decoded_type, has_text


def with_valid_utf8(rows: pa.Table) -> tuple[pa.Table, dict[str, list[int]]]:
    """The rows with valid text in every cell; and, by column, the rows in which it was not."""
    changed: dict[str, list[int]] = {}
    for index, name in enumerate(rows.column_names):
        column = rows.column(index)
        if has_text(column.type) and not _is_valid(column):
            repaired, changed[name] = _repaired(column, name)
            rows = rows.set_column(index, rows.schema.field(index), repaired)
    return rows, changed


def from_surrogates(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An array of values whose texts may hold surrogates, in the place of bytes that are not UTF-8.
    These bytes come back, so that the text is as invalid as it was in its file."""
    return pa.array([_encoded(value) for value in values], as_bytes(kind)).cast(kind, safe=False)


def _is_valid(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _repaired(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, list[int]]:
    """
    Raises:
        InputError: the column's other values cannot be taken apart for that.
    """
    try:
        cells = column.cast(as_bytes(column.type)).to_pylist()
        decoded = [_decoded(cell, column.type, "replace") for cell in cells]
        repaired = pa.array(decoded, decoded_type(column.type)).cast(column.type)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(
            f"column {name!r} of type {column.type} holds text that is not UTF-8 ({error}); leave "
            "it out with data.carry=[...], or write it again as UTF-8"
        ) from error
    ignored = (_decoded(cell, column.type, "ignore") for cell in cells)
    changed = [row for row, its in enumerate(ignored) if its != decoded[row]]
    return pa.chunked_array([repaired]), changed


def _decoded(value: Any, kind: pa.DataType, errors: str) -> Any:
    """A value of `as_bytes(kind)` as one of `kind`."""
    if value is None:
        return None
    if kind in TEXT:
        return value.decode("utf-8", errors)
    if pt.is_dictionary(kind):
        return _decoded(value, kind.value_type, errors)
    if isinstance(kind, pa.BaseExtensionType):
        return _decoded(value, kind.storage_type, errors)
    if pt.is_struct(kind):
        return {its.name: _decoded(value[its.name], its.type, errors) for its in kind}
    if pt.is_map(kind):
        of_both = (kind.key_type, kind.item_type)
        return [
            tuple(_decoded(its, of, errors) for its, of in zip(pair, of_both, strict=True))
            for pair in value
        ]
    if pt.is_nested(kind):
        return [_decoded(its, kind.value_type, errors) for its in value]
    return value


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a surrogate pair
            return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict):
        return {key: _encoded(its) for key, its in value.items()}
    if isinstance(value, list):
        return [_encoded(its) for its in value]
    return value
