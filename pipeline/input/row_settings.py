"""What does a row ask for? What its own columns say, and where they say nothing, what the job says.

A row whose columns ask for what cannot be is one output row with the reason as its error. The plan
and the driver both ask here, so that a part has the output rows that were planned.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from pipeline.config.job import ColumnsConfig, GenerationConfig

MAX_SAMPLES = 100_000
"""Of one row: all of a part's results are held until the part is written."""
WHOLE = {
    "max_new_tokens": (1, 2**31 - 1, "of at least 1"),
    "num_samples": (1, MAX_SAMPLES, f"from 1 to {MAX_SAMPLES}"),
    "seed": (-(2**63), 2**63 - 1, "of 64 bits, from -2**63 to 2**63-1"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    max_new_tokens: int
    temperature: float
    num_samples: int
    """Output rows."""
    seed: int | None = None
    """None: each sample's comes from the run's seed."""
    error: str | None = None


def override_columns(schema: pa.Schema, config: ColumnsConfig) -> dict[str, str]:
    """Setting -> the column that overrides it, for those that the data has.

    Raises:
        ValueError: a column is named that is not there, or one does not hold numbers.
    """
    found: dict[str, str] = {}
    for field in fields(config):
        setting, column = field.name, getattr(config, field.name)
        if column in schema.names:
            kind = schema.field(column).type
            if not _is_number(kind):
                raise ValueError(
                    f"columns.{setting}={column!r}: the column {column!r} is of type {kind}, and "
                    f"a row's {setting} is a number; make it a column of numbers, or set "
                    f"columns.{setting}=null to take the job's for all rows"
                )
            found[setting] = column
        elif column not in (None, field.default):
            raise ValueError(
                f"columns.{setting}={column!r}: not in the data, which has "
                f"{', '.join(schema.names)}; name one of these, or null"
            )
    return found


class SettingsReader:
    """Reads what rows ask for, of a job and the columns that override it."""

    def __init__(self, job: GenerationConfig, columns: Mapping[str, str]) -> None:
        self._job = asdict(job)
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        return list(self._columns.values())

    @property
    def num_samples(self) -> int:
        """Of a row that says nothing else."""
        return int(self._job["num_samples"])

    @property
    def needs_count(self) -> bool:
        """Whether only the rows tell how many output rows there are."""
        return "num_samples" in self._columns or (
            self._job["num_samples"] > 1 and bool(self._columns)
        )

    def read(self, rows: pa.Table) -> list[RowSettings]:
        """What each row asks for; `rows` has at least the columns that override."""
        values = {name: rows[column].to_pylist() for name, column in self._columns.items()}
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
                return self._failed(f"{name}={value}: {fault}, or null for the job's own")
            own[setting] = float(value) if setting == "temperature" else int(value)
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
    """What to give instead of this value."""
    if setting == "temperature":
        is_right = math.isfinite(value) and value >= 0
        return None if is_right else "give 0 (greedy) or a positive number"
    least, most, range_of = WHOLE[setting]
    is_right = math.isfinite(value) and value == int(value) and least <= value <= most
    return None if is_right else f"give a whole number {range_of}"


def _is_number(kind: pa.DataType) -> bool:
    """Floats and decimals too for whole numbers: many tools write a column with nulls so."""
    is_kind = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(is_one(kind) for is_one in is_kind)
