"""Which columns do all input files have together, and of which types?

Every file must have the same columns, of types that mean the same (pipeline/input/types.py); the
rows of all files are read as one type. JSON Lines declare no columns, so theirs are those of all
JSON Lines files together. A column about which files disagree is at fault, and stops only a job
that needs it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import pyarrow as pa

from pipeline.input.casting import cast
from pipeline.input.errors import InputError
from pipeline.input.files import Declared, InputFile
from pipeline.input.json_kinds import JsonColumns
from pipeline.input.types import merged, plain

MOST_NAMES = 12
"""The most names that a message lists."""
WHOLE_NUMBER = re.compile(r"-?\d{1,18}")


@dataclass(frozen=True, slots=True)
class Columns:
    """The input's columns: those with a type, and those that cannot be read."""

    types: dict[str, pa.DataType]
    faults: dict[str, str] = field(default_factory=dict)
    """Column -> why it has no type, as the message for a job that needs it."""
    texts: dict[str, str] = field(default_factory=dict)
    """Columns of JSON Lines that are kept as JSON text -> a note that says why."""

    @property
    def names(self) -> list[str]:
        return [*self.types, *(name for name in self.faults if name not in self.types)]

    def field(self, name: str) -> pa.Field:
        """
        Raises:
            InputError: the column cannot be read.
        """
        if name in self.faults:
            raise InputError(self.faults[name])
        return pa.field(name, self.types[name])

    def only(self, names: Iterable[str]) -> pa.Schema:
        """The schema of the named columns, each of them once.

        Raises:
            InputError: one of them cannot be read.
        """
        return pa.schema([self.field(name) for name in dict.fromkeys(names)])

    def carried(self, names: Iterable[str]) -> pa.Schema:
        """Like `only`, for columns that a job may do without.

        Raises:
            InputError: one of them cannot be read.
        """
        names = list(names)
        try:
            return self.only(names)
        except InputError as error:
            kept = [name for name in names if name not in self.faults]
            shown = kept if len(kept) <= MOST_NAMES else [*kept[:3], "..."]
            raise InputError(f"{error}, or leave it out: data.carry=[{', '.join(shown)}]") from None


def common_columns(
    files: Sequence[InputFile], declared: Sequence[Declared]
) -> tuple[list[InputFile], Columns]:
    """The columns of all files, and the files with a value for every key=value column that they do
    not have themselves."""
    keys = _key_types(files)
    files = [
        file
        if all(key in file.keys or key in its.names for key in keys)
        else replace(
            file, keys=file.keys | {k: None for k in keys if k not in (*file.keys, *its.names)}
        )
        for file, its in zip(files, declared, strict=True)
    ]
    found = _Common()
    json = [
        (file, its)
        for file, its in zip(files, declared, strict=True)
        if isinstance(its, JsonColumns)
    ]
    seen = set[tuple[pa.Schema, frozenset[tuple[str, bool]]]]()
    for file, its in zip(files, declared, strict=True):
        has_value = {key: value is not None for key, value in file.keys.items()}
        own_keys = frozenset(has_value.items())
        if isinstance(its, JsonColumns):
            if file is json[0][0]:
                found.add_json(*json[0], [other for _, other in json[1:]], keys)
        elif (its, own_keys) not in seen:
            seen.add((its, own_keys))
            added = [pa.field(k, keys[k] if has else pa.null()) for k, has in has_value.items()]
            found.add(file.path, [*its, *added])
    return files, Columns(found.types, found.faults, found.texts)


class _Common:
    """The columns of the files seen so far."""

    def __init__(self) -> None:
        self.types: dict[str, pa.DataType] = {}
        self.faults: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self._from: dict[str, str] = {}
        """The file that each type comes from."""
        self._first: str | None = None
        self._narrow: set[str] = set()
        """Columns of JSON Lines whose whole numbers a double holds too."""

    def add_json(
        self,
        file: InputFile,
        columns: JsonColumns,
        others: Sequence[JsonColumns],
        keys: dict[str, pa.DataType],
    ) -> None:
        """Add all JSON Lines files; `columns` are those of the first of them."""
        for other in others:
            columns.merge(other)
        types, faults, texts = columns.types()
        for name, why in faults.items():
            self._blame(
                name,
                f"data.path={file.path}: the column {why}; make its values alike",
            )
        for name, why in texts.items():
            self.texts[name] = f"data.path={file.path}: column {name!r} is kept as JSON text: {why}"
        self._narrow = {name for name in types if columns.fits_double(name)}
        added = {key: kind for key, kind in keys.items() if key not in columns.names}
        self.add(file.path, [pa.field(*pair) for pair in (types | added).items()], set(faults))

    def add(self, path: str, fields: Sequence[pa.Field], known: set[str] | None = None) -> None:
        """Add a file with these columns; it also has the columns `known`, which are at fault."""
        names = [its.name for its in fields]
        for its in fields:
            if names.count(its.name) > 1:
                self._blame(
                    its.name,
                    f"data.path={path}: {names.count(its.name)} columns are called {its.name!r}; "
                    "rename all but one in the file",
                )
            elif self._first is not None and its.name not in (*self.types, *self.faults):
                self._disagree(its.name, (its.type, path), ("no such column", self._first))
            elif its.name not in self.faults:
                self._merge(its.name, plain(its.type), path)
        if self._first is not None:
            for name in [name for name in self.types if name not in (*names, *(known or ()))]:
                there = (self.types[name], self._from[name])
                self._disagree(name, ("no such column", path), there)
        self._first = self._first or path

    def _merge(self, name: str, here: pa.DataType, path: str) -> None:
        there = self.types.get(name)
        if there is None:
            self.types[name], self._from[name] = here, path
            return
        if name in self._narrow:
            if here == there == pa.int64():
                self._narrow.discard(name)  # whole numbers of another file may be larger
            here, there = (
                pa.int32() if kind == pa.int64() and pa.types.is_floating(beside) else kind
                for kind, beside in ((here, there), (there, here))
            )
        both = merged(there, here)
        if both is None or not all(_can_cast(kind, both) for kind in (here, there)):
            self._disagree(name, (here, path), (self.types[name], self._from[name]))
        elif not both.equals(there):
            self.types[name], self._from[name] = both, path

    def _disagree(self, name: str, here: tuple[object, str], there: tuple[object, str]) -> None:
        self._blame(
            name,
            f"data.path: the files disagree on column {name!r}: {here[0]} in {here[1]}, {there[0]} "
            f"in {there[1]}; make them alike, name fewer files",
        )

    def _blame(self, name: str, message: str) -> None:
        self.faults.setdefault(name, message)
        self.types.pop(name, None)


def _can_cast(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether the library can do the conversion that the reader will ask of it."""
    try:
        cast(pa.chunked_array([pa.array([None], kind)]), wanted)
    except pa.ArrowException:
        return False
    return True


def _key_types(files: Sequence[InputFile]) -> dict[str, pa.DataType]:
    """The types of all key=value columns: whole numbers if all values are, else text."""
    values: dict[str, set[str]] = {}
    for key, value in chain.from_iterable(file.keys.items() for file in files):
        values.setdefault(key, set()).update([] if value is None else [value])
    return {key: _key_type(its) for key, its in values.items()}


def _key_type(values: set[str]) -> pa.DataType:
    if not values or not all(WHOLE_NUMBER.fullmatch(value) for value in values):
        return pa.string()
    return pa.int32() if all(-(2**31) <= int(v) < 2**31 for v in values) else pa.int64()
