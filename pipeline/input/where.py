"""The row filter `data.where`: a SQL condition over the columns, evaluated by polars."""

import warnings

import numpy as np
import polars as pl
import pyarrow as pa

from engine.errors import UserError
from pipeline.input.columns import Columns
from pipeline.input.errors import first_line
from pipeline.input.utf8 import with_valid_utf8

CROSS_ROW_SIGNS = ('"Agg":', '"Over":', '"Window":')
"""Parts of a serialized polars expression that mean it aggregates over rows or looks at other rows.
Such a condition would depend on how the rows are batched."""

FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)
"""What a condition or a column's type is to blame for: for a type that it does not know, polars may
panic. Anything else is a bug, or the machine's."""


class Where:
    """A condition that decides for each row, from that row's columns alone, whether it is taken.

    It is tried on an empty table when it is created, so that a wrong condition fails early.

    Raises:
        UserError: polars cannot evaluate it, it names no column or one that does not exist or
            cannot be read, it looks at other rows, or its result is not a boolean.
    """

    def __init__(self, expression: str, schema: pa.Schema | Columns) -> None:
        self.expression = expression
        try:
            self._expr = pl.sql_expr(expression)
            self.columns = list(dict.fromkeys(self._expr.meta.root_names()))
            # polars warns that this format may change; a test would notice.
            with warnings.catch_warnings(action="ignore"):
                serialized = self._expr.meta.serialize(format="json")
        except FAULTS as error:
            raise self._fault(error) from error
        if any(sign in serialized for sign in CROSS_ROW_SIGNS):
            raise UserError(
                f"data.where={expression!r}: looks at other rows (max, count, over), but may use "
                "only the row itself; compute that value into a column first"
            )
        missing = [name for name in self.columns if name not in schema.names]
        if missing or not self.columns:
            what = f"{', '.join(missing)} not in" if missing else "names no column of"
            raise UserError(
                f"data.where={expression!r}: {what} the data, which has {', '.join(schema.names)}"
            )
        self.takes(pa.schema([schema.field(name) for name in self.columns]).empty_table())

    def takes(self, rows: pa.Table) -> np.ndarray:
        """One bool per row: whether it is taken. Where the condition is null, it is not. Bytes of a
        text that are not UTF-8 count as U+FFFD."""
        used, _ = with_valid_utf8(rows.select(self.columns))
        try:
            frame = pl.DataFrame(pl.from_arrow(used))
            answer = frame.select(self._expr.alias("takes"))["takes"]
        except FAULTS as error:
            raise self._fault(error) from error
        if answer.dtype != pl.Boolean or len(answer) != rows.num_rows:
            raise UserError(
                f"data.where={self.expression!r}: gives {answer.dtype}, and {len(answer)} values "
                f"for {rows.num_rows} rows; it must be true or false for each row"
            )
        return answer.fill_null(False).to_numpy()

    def _fault(self, error: BaseException) -> UserError:
        return UserError(
            f"data.where={self.expression!r}: polars cannot do this ({first_line(error)}); give a "
            "SQL condition over the columns, such as length(prompt) < 2000 AND lang = 'py'"
        )
