"""Bring a column to another type that means the same.

Arrow's own cast does it, except for list views: it makes lists of them whose offsets are not valid
(seen in pyarrow 26), so these are taken apart here.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from pipeline.input.types import with_children


def cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """
    Raises:
        pa.ArrowException: a value does not fit, or Arrow cannot do it.
    """
    if has_list_views(column.type):
        chunks = [_without_list_views(chunk) for chunk in column.chunks]
        column = pa.chunked_array(chunks, _without(column.type))
    if column.type.equals(kind):
        return column
    # Text that is not UTF-8 is the fault of its cell (pipeline/input/utf8.py), not of the column.
    options = pc.CastOptions(target_type=kind, allow_invalid_utf8=True)
    return pc.cast(column, options=options)


def has_list_views(kind: pa.DataType) -> bool:
    """Whether the type has list views, at any depth."""
    return not _without(kind).equals(kind)


def _without(kind: pa.DataType) -> pa.DataType:
    """The type with lists in the place of list views, which with_children does."""
    return with_children(kind, _without)


def _without_list_views(array: pa.Array) -> pa.Array:
    kind, wanted = array.type, _without(array.type)
    if kind.equals(wanted):
        return array
    if pt.is_struct(kind):
        children = [_without_list_views(child) for child in array.flatten()]
        return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())
    if pt.is_map(kind) or pt.is_fixed_size_list(kind):
        return pa.array(array.to_pylist(), wanted)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    is_large = pt.is_large_list(wanted)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("int64" if is_large else "int32")
    made = pa.LargeListArray if is_large else pa.ListArray
    return made.from_arrays(
        pa.array(offsets), _without_list_views(array.flatten()), wanted, mask=array.is_null()
    )
