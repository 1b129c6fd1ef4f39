"""The generation settings of one row: the job's settings, overridden by the row's own columns.

A row with an invalid setting becomes one output row whose `error` says why. Planning and generation
both use this module, so that a part gets exactly the output rows that were planned.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from engine.errors import UserError
from engine.model.authors import Confidence
from pipeline.config.generation import ColumnsConfig, GenerationConfig
from pipeline.input.columns import Columns
from pipeline.input.types import TEXT, decoded_type
from pipeline.input.utf8 import with_valid_utf8

MAX_SAMPLES = 100_000
"""The most samples of one row: all results of a part are in memory until it is written."""
INTEGER_RANGES = {
    "max_new_tokens": (1, 2**31 - 1, "of at least 1"),
    "top_k": (1, 2**31 - 1, "of at least 1"),
    "num_samples": (1, MAX_SAMPLES, f"from 1 to {MAX_SAMPLES}"),
    "seed": (-(2**63), 2**63 - 1, "of 64 bits, from -2**63 to 2**63-1"),
}
FLOATS: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda its: its >= 0, "give 0 (greedy) or a positive number"),
    "top_p": (lambda its: 0 < its <= 1, "give a probability above 0 and at most 1"),
    "guidance": (lambda its: its >= 0, "give 0 (none) or a positive number"),
}
"""Setting -> which finite numbers it may be, and the remedy for others."""
STOP = "stop"
"""The one setting that is not a number."""
NOT_UTF8 = "text that is not UTF-8"
"""Stands for a list with such a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    max_new_tokens: int
    temperature: float
    num_samples: int
    """How many output rows the row has."""
    top_k: int | None = None
    top_p: float | None = None
    confidence: Confidence | None = None
    guidance: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    """The seed of the row's first sample; None: all seeds are derived from the run's seed."""
    error: str | None = None
    """Why the row's settings are invalid; the other fields are then the job's, with one sample."""


def override_columns(
    schema: pa.Schema | Columns, config: ColumnsConfig, ignored: Collection[str] = ()
) -> dict[str, str]:
    """Maps each setting to the input column that overrides it, for the columns that exist.

    A column with a default name is optional; a column that the user named must exist. A column in
    `ignored` is used only under another name than the default.

    Raises:
        UserError: a column that the user named does not exist, or an override column does not
            hold numbers (for `stop`: lists of texts).
    """
    found: dict[str, str] = {}
    for field in fields(config):
        setting, column = field.name, getattr(config, field.name)
        if column in schema.names and not (column in ignored and column == field.default):
            kind = schema.field(column).type
            if not (_is_list_of_texts(kind) if setting == STOP else _is_number(kind)):
                what = ("a list of texts", "lists of texts")
                one, many = what if setting == STOP else ("a number", "numbers")
                raise UserError(
                    f"columns.{setting}={column!r}: the column {column!r} is of type {kind}, but "
                    f"{setting} must be {one}; make it a column of {many}, or set "
                    f"columns.{setting}=null to use the job's value for all rows"
                )
            found[setting] = column
        elif column not in (None, field.default):
            raise UserError(
                f"columns.{setting}={column!r}: not in the data, which has "
                f"{', '.join(schema.names)}; name one of these, or null"
            )
    return found


class SettingsReader:
    """Reads the settings of rows: the job's, overridden by `columns` (setting -> column)."""

    def __init__(self, job: GenerationConfig, columns: Mapping[str, str]) -> None:
        self._job = asdict(job) | {STOP: tuple(job.stop or ())}
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        """The names of the override columns."""
        return list(self._columns.values())

    @property
    def num_samples(self) -> int:
        """The job's value, which is the default for rows without their own."""
        return int(self._job["num_samples"])

    @property
    def needs_count(self) -> bool:
        """Whether rows can differ in their number of output rows, so that they must be counted.

        They can if there is a column for it, or if the job has several samples per row, because a
        row with an invalid setting has only one output row.
        """
        return "num_samples" in self._columns or (
            self._job["num_samples"] > 1 and bool(self._columns)
        )

    def read(self, rows: pa.Table) -> list[RowSettings]:
        """The settings of each row; `rows` has at least the override columns."""
        values = {
            name: (_lists_of_texts if name == STOP else pa.ChunkedArray.to_pylist)(rows[column])
            for name, column in self._columns.items()
        }
        return [
            self._read_one({name: column[row] for name, column in values.items()})
            for row in range(rows.num_rows)
        ]

    def _read_one(self, cells: Mapping[str, Any]) -> RowSettings:
        own: dict[str, Any] = {}
        for setting, value in cells.items():
            if value is None:
                continue
            name = self._columns[setting]
            if fault := _fault(setting, value):
                return self._failed(f"{name}={value}: {fault}, or null to use the job's")
            kind = tuple if setting == STOP else float if setting in FLOATS else int
            own[setting] = kind(value)
        settings = RowSettings(**(self._job | own))
        if settings.num_samples > 1 and settings.temperature == 0:
            samples, temperature = (
                f"{self._columns[name] if name in own else f'generation.{name}'}"
                f"={getattr(settings, name)}"
                for name in ("num_samples", "temperature")
            )
            return self._failed(
                f"{samples} with {temperature}: all would be the same; give the row a "
                "temperature above 0, or one sample"
            )
        return settings

    def _failed(self, error: str) -> RowSettings:
        return RowSettings(**(self._job | {"num_samples": 1, "error": error}))


def _fault(setting: str, value: Any) -> str | None:
    """The remedy if the value is invalid; None if it is valid."""
    if setting == STOP:
        is_valid = value != NOT_UTF8 and all(value)
        return None if is_valid else "give a list of texts that are not empty, in valid UTF-8"
    if setting in FLOATS:
        is_in_range, remedy = FLOATS[setting]
        return None if math.isfinite(value) and is_in_range(value) else remedy
    least, most, range_text = INTEGER_RANGES[setting]
    is_valid = math.isfinite(value) and value == int(value) and least <= value <= most
    return None if is_valid else f"give a whole number {range_text}"


def _lists_of_texts(column: pa.ChunkedArray) -> list[Any]:
    rows, wrong = with_valid_utf8(pa.table([column], names=[STOP]))
    values: list[Any] = rows[STOP].to_pylist()
    for row in wrong.get(STOP, []):
        values[row] = NOT_UTF8
    return values


def _is_number(kind: pa.DataType) -> bool:
    """Floats and decimals are accepted for whole numbers too: many tools write an integer column
    with nulls as floats."""
    is_kind = (pt.is_integer, pt.is_floating, pt.is_decimal, pt.is_null)
    return any(is_one(kind) for is_one in is_kind)


def _is_list_of_texts(kind: pa.DataType) -> bool:
    kind = decoded_type(kind)
    return pt.is_null(kind) or (
        any(is_one(kind) for is_one in (pt.is_list, pt.is_large_list, pt.is_fixed_size_list))
        and (kind.value_type in TEXT or pt.is_null(kind.value_type))
    )
