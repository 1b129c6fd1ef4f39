"""Which columns do JSON Lines have, and of which types?

The lines declare no schema, so all of them are looked at. A column's type holds every value of all
lines exactly. Where there is none (numbers beside texts), the column is at fault, with the lines
that say so; a job that does not need it never hears of it. Objects whose keys are data (thousands
of different keys, no end of nesting, no key at all) make no type either, nor do objects and lists
that hold texts in one line and lists in another: such a column is kept as JSON text.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipeline.input.errors import InputError

MAX_KEYS = 256
"""The most keys that the objects of one column may have, at all depths together."""
MAX_DEPTH = 32
"""The most levels of nesting; Arrow's file formats allow 64 at most."""
EXACT = 2**53
"""Up to here, a double holds every whole number."""

BOOL, WHOLE, FRACTION = "true or false", "whole numbers", "fractions"
TEXT, OBJECT, ARRAY = "text", "objects", "lists"
LARGE, HUGE = "whole numbers beyond 2**53", "whole numbers beyond 64 bits"
KIND_OF = {bool: BOOL, int: WHOLE, float: FRACTION, str: TEXT, dict: OBJECT, list: ARRAY}
SIMPLE = {
    *(frozenset(), frozenset({BOOL}), frozenset({WHOLE}), frozenset({FRACTION})),
    *(frozenset({WHOLE, FRACTION}), frozenset({TEXT}), frozenset({OBJECT}), frozenset({ARRAY})),
}
"""The kinds of value that may be together in one place."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A value that Python cannot parse: nested too deep, or a number of too many digits."""

    text: str
    is_deep: bool


class _IsData(Exception):
    """The keys of a column's objects are data: the column is kept as JSON text."""


class _NoType(Exception):
    """Values of a column that no type holds together."""


@dataclass(slots=True)
class Place:
    """What was seen in one place of a column: at its top, in a field or in the items of a list."""

    first: dict[str, str] = field(default_factory=dict)
    """Kind of value -> where the first was seen."""
    fields: dict[str, "Place"] = field(default_factory=dict)
    items: "Place | None" = None

    def see(self, values: Sequence[Any], lines: Sequence[int], path: str) -> None:
        """Note the kinds of these values, without what is in them."""
        classes = set(map(type, values))
        for cls, kind in KIND_OF.items():
            if cls in classes and kind not in self.first:
                at = next(i for i, value in enumerate(values) if type(value) is cls)
                self.first[kind] = f"{path} line {lines[at]}"
        if int in classes:
            self._see_size(values, lines, path)
        if Unparsed in classes:
            self._see_unparsed(values, lines, path)

    def _see_unparsed(self, values: Sequence[Any], lines: Sequence[int], path: str) -> None:
        for value, line in zip(values, lines, strict=True):
            if isinstance(value, Unparsed):
                kind = ARRAY if value.text[0] == "[" else OBJECT
                self.first.setdefault(kind if value.is_deep else HUGE, f"{path} line {line}")

    def _see_size(self, values: Sequence[Any], lines: Sequence[int], path: str) -> None:
        numbers = [value for value in values if type(value) is int]
        low, high = min(numbers), max(numbers)
        for kind, least, most in (LARGE, -EXACT, EXACT), (HUGE, -(2**63), 2**63 - 1):
            if (low < least or high > most) and kind not in self.first:
                beyond = (
                    line
                    for value, line in zip(values, lines, strict=True)
                    if type(value) is int and not least <= value <= most
                )
                self.first[kind] = f"{path} line {next(beyond)}"

    def merge(self, other: "Place") -> None:
        self.first = {**other.first, **self.first}
        for name, its in other.fields.items():
            self.fields.setdefault(name, Place()).merge(its)
        if other.items is not None:
            self.items = self.items or Place()
            self.items.merge(other.items)

    @property
    def num_keys(self) -> int:
        below = [*self.fields.values(), *([self.items] if self.items else [])]
        return len(self.fields) + sum(place.num_keys for place in below)

    def type(self, name: str) -> pa.DataType:
        """The type that holds all values. `name` is that of the place in messages.

        Raises:
            _NoType: there is none.
            _IsData: objects that have no key.
        """
        kinds = frozenset(self.first) - {LARGE, HUGE}
        if kinds not in SIMPLE:
            seen = " and ".join(f"{kind} ({self.first[kind]})" for kind in self.first)
            raise _NoType(f"{name!r} holds {seen}")
        if HUGE in self.first:
            raise _NoType(f"{name!r} holds {HUGE} ({self.first[HUGE]})")
        if LARGE in self.first and FRACTION in kinds:
            raise _NoType(
                f"{name!r} holds {LARGE} ({self.first[LARGE]}) and {FRACTION} "
                f"({self.first[FRACTION]}), which no number type holds exactly together"
            )
        if OBJECT in kinds:
            if not self.fields:
                raise _IsData(f"it holds objects without a key ({self.first[OBJECT]})")
            return pa.struct([(key, its.type(f"{name}.{key}")) for key, its in self.fields.items()])
        if ARRAY in kinds:
            return pa.list_((self.items or Place()).type(f"{name}[]"))
        if FRACTION in kinds:
            return pa.float64()
        simple = {BOOL: pa.bool_(), WHOLE: pa.int64(), TEXT: pa.string()}
        return next((simple[kind] for kind in kinds), pa.null())


@dataclass(slots=True)
class JsonColumn:
    top: Place = field(default_factory=Place)
    as_text: str | None = None
    """Why it is kept as JSON text."""
    num_keys: int = 0

    def add(self, values: Sequence[Any], lines: Sequence[int], path: str) -> None:
        if self.as_text is None:
            try:
                self._add(self.top, values, lines, path, 1)
            except _IsData as found:
                self.as_text = str(found)
        else:
            self.top.see(values, lines, path)

    def _add(
        self, place: Place, values: Sequence[Any], lines: Sequence[int], path: str, depth: int
    ) -> None:
        """Note the values' kinds, and what is in objects and lists.

        Raises:
            _IsData: too many keys, or too deep.
        """
        place.see(values, lines, path)
        classes = set(map(type, values))
        is_deep = Unparsed in classes and any(
            value.is_deep for value in values if isinstance(value, Unparsed)
        )
        if depth > MAX_DEPTH or is_deep:
            raise _IsData(f"it is nested more than {MAX_DEPTH} deep ({path} line {lines[0]})")
        if dict in classes:
            for key, (its, its_lines) in _by_key(values, lines).items():
                if key not in place.fields:
                    self._count_key(key, f"{path} line {its_lines[0]}")
                    place.fields[key] = Place()
                self._add(place.fields[key], its, its_lines, path, depth + 1)
        if list in classes:
            pairs = [pair for pair in zip(values, lines, strict=True) if type(pair[0]) is list]
            items = list(chain.from_iterable(value for value, _ in pairs))
            its_lines = [line for value, line in pairs for _ in value]
            place.items = place.items or Place()
            if items:
                self._add(place.items, items, its_lines, path, depth + 1)

    def merge(self, other: "JsonColumn") -> None:
        """Add what another file has."""
        self.top.merge(other.top)
        self.as_text = self.as_text or other.as_text
        if self.as_text is None and self.top.num_keys > MAX_KEYS:
            self.as_text = _too_many("in all files together")

    def type(self, name: str) -> pa.DataType:
        """
        Raises:
            _NoType: no type holds all values.
        """
        if self.as_text is not None:
            if set(self.top.first) <= {OBJECT, ARRAY}:
                return pa.string()
            seen = " and ".join(f"{kind} ({where})" for kind, where in self.top.first.items())
            raise _NoType(f"{name!r} holds {seen}")
        try:
            return self.top.type(name)
        except _IsData as found:
            self.as_text = str(found)
            return self.type(name)
        except _NoType as fault:
            # Inside objects and lists, text can hold what no type does: messages, for example,
            # whose content is a text in one line and a list of parts in another.
            if set(self.top.first) <= {OBJECT, ARRAY} and len(self.top.first) == 1:
                self.as_text = str(fault)
                return pa.string()
            raise

    def _count_key(self, key: str, where: str) -> None:
        check_key(key, where)
        self.num_keys += 1
        if self.num_keys > MAX_KEYS:
            raise _IsData(_too_many(where))


class JsonColumns:
    """The columns of a JSON Lines file, or of several."""

    def __init__(self, path: str) -> None:
        self._shown = PurePosixPath(path).name
        self._columns: dict[str, JsonColumn] = {}

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    def add(self, rows: Sequence[dict[str, Any]], lines: Sequence[int]) -> None:
        """Look at rows, which begin in these lines.

        Raises:
            InputError: a key is not valid Unicode.
        """
        for name, (values, its_lines) in _by_key(rows, lines).items():
            if name not in self._columns:
                check_key(name, f"{self._shown} line {its_lines[0]}")
                self._columns[name] = JsonColumn()
            self._columns[name].add(values, its_lines, self._shown)

    def merge(self, other: "JsonColumns") -> None:
        """Add the columns of another file."""
        for name, column in other._columns.items():
            self._columns.setdefault(name, JsonColumn()).merge(column)

    def fits_double(self, name: str) -> bool:
        """Whether the column holds whole numbers that a double holds exactly, and nothing else."""
        return set(self._columns[name].top.first) == {WHOLE}

    def types(self) -> tuple[dict[str, pa.DataType], dict[str, str], dict[str, str]]:
        """The types of the columns that have one; why the others have none; and, of the former,
        why some are kept as JSON text."""
        types: dict[str, pa.DataType] = {}
        faults: dict[str, str] = {}
        for name, column in self._columns.items():
            try:
                types[name] = column.type(name)
            except _NoType as fault:
                faults[name] = str(fault)
        texts = {
            name: column.as_text
            for name, column in self._columns.items()
            if column.as_text is not None and name in types
        }
        return types, faults, texts


def check_key(key: str, where: str) -> None:
    """
    Raises:
        InputError: the key is not valid Unicode.
    """
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: the key {key!r} is not valid Unicode (not UTF-8, or half a surrogate pair); "
            "fix the line"
        ) from error


def _too_many(where: str) -> str:
    return f"its objects have more than {MAX_KEYS} different keys ({where})"


def _by_key(values: Sequence[Any], lines: Sequence[int]) -> dict[str, tuple[list[Any], list[int]]]:
    """The values of all objects among `values`, by their keys, each with its line."""
    groups: dict[str, tuple[list[Any], list[int]]] = defaultdict(lambda: ([], []))
    for value, line in zip(values, lines, strict=True):
        if type(value) is dict:
            for key, its in value.items():
                group = groups[key]
                group[0].append(its)
                group[1].append(line)
    return groups
