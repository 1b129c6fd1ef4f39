"""Reads the cells that prompts are made of, one row at a time where that is needed.

One cell that cannot be read must not cost the rows around it their prompts. Whatever happens while
a row is prepared is that row's error.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from engine.text.chat import PromptError
from pipeline.input.errors import first_line, is_panic

log = logging.getLogger("pipeline")
T = TypeVar("T")

MAX_TRACEBACKS = 10
"""How many tracebacks a worker logs of rows that failed in a way that nobody has thought of."""


class Unreadable:
    """In the place of a cell's value: what was raised when it was read."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def cells_of(rows: pa.Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """The cells of these columns, row by row."""
    columns = {name: _cells(rows[name]) for name in names}
    return [{name: cells[i] for name, cells in columns.items()} for i in range(rows.num_rows)]


def _cells(column: pa.ChunkedArray) -> list[Any]:
    try:
        cells: list[Any] = _in_microseconds(column).to_pylist()
    except Exception:  # noqa: BLE001 - each cell by itself says which are at fault
        return [_cell(column.take([i])) for i in range(len(column))]  # a slice holds others' items
    return cells


def _cell(column: pa.ChunkedArray) -> Any:
    try:
        return _in_microseconds(column)[0].as_py()
    except Exception as error:  # noqa: BLE001 - it becomes the row's error
        return Unreadable(error)


def _in_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without nanoseconds, which Python does not have: of what is left of them pyarrow
    makes pandas' values where pandas is installed, and an error elsewhere.

    Raises:
        pa.ArrowException: a value has nanoseconds.
    """
    kind = _kind_in_microseconds(column.type)
    return column if kind == column.type else column.cast(kind)


def _kind_in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_kind_in_microseconds(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_kind_in_microseconds(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_kind_in_microseconds(kind.value_type)))
    return kind


class RowErrors:
    """Turns whatever is raised while one row is prepared into that row's error."""

    def __init__(self) -> None:
        self._num_logged = 0

    def of(
        self, cells: dict[str, Any], place: str, prepare: Callable[[dict[str, Any]], T]
    ) -> tuple[T | None, str]:
        """What `prepare` makes of the cells; or None, and the reason why it makes nothing.

        `place` names the row and its file.
        """
        try:
            for name, value in cells.items():
                if isinstance(value, Unreadable):
                    return None, f"{_cell_fault(name, value.error)} ({place})"
            return prepare(cells), ""
        except PromptError as error:
            return None, str(error)
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            self._log(place, error)
            what = f"{type(error).__name__}: {first_line(error)}"
            return None, f"{', '.join(cells)}: cannot be made a prompt of ({what}; {place})"

    def _log(self, place: str, error: BaseException) -> None:
        self._num_logged += 1
        if self._num_logged <= MAX_TRACEBACKS:
            log.warning("%s cannot be prepared", place, exc_info=error)


def _cell_fault(name: str, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f"{name}: not UTF-8 (byte 0x{byte:02x} at {error.start}); write the text as UTF-8"
    return f"{name}: cannot be read ({type(error).__name__}: {first_line(error)})"


def log_replaced(changed: dict[str, list[int]], numbers: Sequence[int], path: str) -> None:
    """Say in the log which cells on their way to the output were not UTF-8."""
    for name, rows in changed.items():
        log.warning(
            "%s: column %r is not UTF-8 in %d rows (row %s): the wrong bytes become U+FFFD in the "
            "output",
            path,
            name,
            len(rows),
            ", ".join(str(numbers[row]) for row in rows[:20]) + (", ..." if len(rows) > 20 else ""),
        )
