"""Which Arrow types mean the same, and which type holds the values of both.

Files of one data set are often written by different programs: one calls its texts string, another
large_string or string_view, a third encodes them as a dictionary. Their values are the same. All
files are read as one type, which must hold every value of each exactly.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.types as pt

Change = Callable[[pa.DataType], pa.DataType]

TEXT = (pa.string(), pa.large_string())
BYTES = (pa.binary(), pa.large_binary())
TIME_UNITS = ("s", "ms", "us", "ns")


def plain(kind: pa.DataType) -> pa.DataType:
    """The type without views and run ends, at any depth. Arrow's kernels, polars and other readers
    do not support these everywhere; the values are the same."""
    if pt.is_string_view(kind):
        return pa.string()
    if pt.is_binary_view(kind):
        return pa.binary()
    if pt.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pt.is_dictionary(kind):
        return pa.dictionary(kind.index_type, plain(kind.value_type), kind.ordered)
    return with_children(kind, plain)


def as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with bytes in the place of text, and without dictionaries, at any depth."""
    if kind in TEXT:
        return BYTES[TEXT.index(kind)]
    if pt.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        return as_bytes(decoded_type(kind))
    return with_children(kind, as_bytes)


def decoded_type(kind: pa.DataType) -> pa.DataType:
    """The type of a dictionary's values, and what an extension stores, at any depth."""
    if pt.is_dictionary(kind):
        return decoded_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return decoded_type(kind.storage_type)
    return with_children(kind, decoded_type) if pt.is_nested(kind) else kind


def with_children(kind: pa.DataType, change: Change) -> pa.DataType:
    """A nested type with `change` applied to the types of its children; others as they are."""
    if pt.is_struct(kind):
        return pa.struct([field.with_type(change(field.type)) for field in kind])
    if pt.is_map(kind):
        return pa.map_(change(kind.key_type), change(kind.item_type), kind.keys_sorted)
    if pt.is_fixed_size_list(kind):
        return pa.list_(_item(kind, change), kind.list_size)
    if pt.is_large_list(kind) or pt.is_large_list_view(kind):
        return pa.large_list(_item(kind, change))
    if pt.is_list(kind) or pt.is_list_view(kind):
        return pa.list_(_item(kind, change))
    return kind


def has_text(kind: pa.DataType) -> bool:
    """Whether values of the type hold text, at any depth."""
    if pt.is_dictionary(kind):
        return has_text(kind.value_type)
    if pt.is_map(kind):
        return has_text(kind.key_type) or has_text(kind.item_type)
    if isinstance(kind, pa.BaseExtensionType):
        return has_text(kind.storage_type)
    if pt.is_nested(kind):
        return any(has_text(kind.field(i).type) for i in range(kind.num_fields))
    return kind in TEXT or bool(pt.is_string_view(kind))


def is_text_dictionary(kind: pa.DataType) -> bool:
    return bool(pt.is_dictionary(kind)) and kind.value_type in TEXT


def has_nested_dictionary(kind: pa.DataType) -> bool:
    """Whether a list, struct or map holds a dictionary, at any depth."""
    if not pt.is_nested(kind):
        return False
    children = [kind.field(i).type for i in range(kind.num_fields)]
    return any(pt.is_dictionary(child) or has_nested_dictionary(child) for child in children)


def merged(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both exactly; None if there is none. Both are plain."""
    if one.equals(other) or pt.is_null(other):
        return one
    if pt.is_null(one):
        return other
    if pt.is_dictionary(one) or pt.is_dictionary(other):
        return _merged_dictionaries(one, other)
    for family in (TEXT, BYTES):
        if one in family and other in family:
            return family[1]
    if _is_number(one) and _is_number(other):
        return _merged_numbers(one, other)
    if pt.is_decimal(one) and pt.is_decimal(other):
        return _merged_decimals(one, other)
    if _is_list(one) and _is_list(other):
        return _merged_lists(one, other)
    if pt.is_struct(one) and pt.is_struct(other):
        return _merged_structs(one, other)
    if pt.is_map(one) and pt.is_map(other):
        key, item = merged(one.key_type, other.key_type), merged(one.item_type, other.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    return _merged_rest(one, other)


def _merged_dictionaries(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Of two dictionaries a dictionary; of a dictionary and plain values plain values."""
    values = [kind.value_type if pt.is_dictionary(kind) else kind for kind in (one, other)]
    value = merged(*values)
    if value is None or not (pt.is_dictionary(one) and pt.is_dictionary(other)):
        return value
    index = one.index_type
    if index != other.index_type:
        is_wide = 64 in (index.bit_width, other.index_type.bit_width)
        index = pa.int64() if is_wide else pa.int32()
    return pa.dictionary(index, value, one.ordered and other.ordered)


def _merged_numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A double holds whole numbers of 32 bits, not all of 64; nothing holds unsigned ones of 64
    bits beside negative ones."""
    kinds = (one, other)
    if any(pt.is_floating(kind) for kind in kinds):
        bits = [k.bit_width if pt.is_floating(k) else 2 * k.bit_width for k in kinds]
        return {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}.get(max(bits))
    signed = [pt.is_signed_integer(kind) for kind in kinds]
    if all(signed) or not any(signed):
        return max(kinds, key=lambda kind: kind.bit_width)
    bits = [k.bit_width if s else 2 * k.bit_width for k, s in zip(kinds, signed, strict=True)]
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(max(bits))


def _merged_decimals(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, other.scale)
    digits = max(one.precision - one.scale, other.precision - other.scale) + scale
    if digits > 76:
        return None
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _merged_lists(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    item = merged(one.value_type, other.value_type)
    if item is None:
        return None
    field = one.value_field.with_type(item).with_nullable(True)
    fixed = [pt.is_fixed_size_list(kind) for kind in (one, other)]
    if all(fixed) and one.list_size == other.list_size:
        return pa.list_(field, one.list_size)
    if pt.is_large_list(one) or pt.is_large_list(other):
        return pa.large_list(field)
    return pa.list_(field)


def _merged_structs(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The fields of both, by name: a field that one lacks is null there."""
    names = [[field.name for field in kind] for kind in (one, other)]
    if any(len(set(its)) < len(its) for its in names):
        return None
    fields = []
    for name in dict.fromkeys([*names[0], *names[1]]):
        there = [
            kind.field(name) for kind, its in zip((one, other), names, strict=True) if name in its
        ]
        kind = merged(there[0].type, there[-1].type)
        if kind is None:
            return None
        nullable = len(there) < 2 or any(field.nullable for field in there)
        fields.append(pa.field(name, kind, nullable))
    return pa.struct(fields)


def _merged_rest(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Times of different units, dates, bytes of fixed width, extensions and what they store."""
    kinds = (one, other)
    if all(pt.is_timestamp(kind) for kind in kinds) and one.tz == other.tz:
        unit = _finer_unit(one.unit, other.unit)
        return None if unit is None else pa.timestamp(unit, one.tz)
    if all(pt.is_duration(kind) for kind in kinds):
        unit = _finer_unit(one.unit, other.unit)
        return None if unit is None else pa.duration(unit)
    if all(pt.is_time(kind) for kind in kinds):
        unit = max(one.unit, other.unit, key=TIME_UNITS.index)
        return pa.time32(unit) if unit in TIME_UNITS[:2] else pa.time64(unit)
    if all(pt.is_date(kind) for kind in kinds):
        return pa.date32()
    if all(pt.is_fixed_size_binary(kind) or kind in BYTES for kind in kinds):
        return pa.large_binary() if pa.large_binary() in kinds else pa.binary()
    extended = [isinstance(kind, pa.BaseExtensionType) for kind in kinds]
    if any(extended) and not all(extended):
        stored = [getattr(kind, "storage_type", kind) for kind in kinds]
        return merged(*stored)
    return None


def _finer_unit(one: str, other: str) -> str | None:
    """None beside nanoseconds: 64 bits of them end in the year 2262, so others may not fit."""
    return None if "ns" in (one, other) else max(one, other, key=TIME_UNITS.index)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _item(kind: pa.DataType, change: Change) -> pa.Field:
    return kind.value_field.with_type(change(kind.value_type))
