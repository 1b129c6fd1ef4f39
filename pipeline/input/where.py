"""data.where: which rows are taken? A SQL expression over the columns, as polars understands it."""

import warnings

import numpy as np
import polars as pl
import pyarrow as pa

OVER_ROWS = ('"Agg":', '"Over":', '"Window":')
"""How polars writes down what sums over rows, or looks at their neighbours."""


class Where:
    """An expression that was tried on the columns' types.

    Raises:
        ValueError: polars does not understand it, it names no column or one that is not there, or
            it is neither true nor false.
    """

    def __init__(self, expression: str, schema: pa.Schema) -> None:
        self.expression = expression
        try:
            self._expr = pl.sql_expr(expression)
            self.columns = list(dict.fromkeys(self._expr.meta.root_names()))
            with warnings.catch_warnings(action="ignore"):  # its form is not stable; a test looks
                written = self._expr.meta.serialize(format="json")
        except Exception as error:
            raise self._fault(error) from error
        if any(sign in written for sign in OVER_ROWS):
            raise ValueError(
                f"data.where={expression!r}: looks at other rows than its own (max, count, over); "
                "a row is taken or not for itself alone: compute that into a column first"
            )
        missing = [name for name in self.columns if name not in schema.names]
        if missing or not self.columns:
            what = f"{', '.join(missing)} not in" if missing else "names no column of"
            raise ValueError(
                f"data.where={expression!r}: {what} the data, which has {', '.join(schema.names)}"
            )
        self.takes(pa.schema([schema.field(name) for name in self.columns]).empty_table())

    def takes(self, rows: pa.Table) -> np.ndarray:
        """[rows] bool; a row of which the expression is null is left out."""
        try:
            frame = pl.DataFrame(pl.from_arrow(rows.select(self.columns)))
            answer = frame.select(self._expr.alias("takes"))["takes"]
        except Exception as error:
            raise self._fault(error) from error
        if answer.dtype != pl.Boolean or len(answer) != rows.num_rows:
            raise ValueError(
                f"data.where={self.expression!r}: gives {answer.dtype}, and {len(answer)} values "
                f"for {rows.num_rows} rows; it must say true or false of each row"
            )
        return answer.fill_null(False).to_numpy()

    def _fault(self, error: Exception) -> ValueError:
        reason = str(error).strip().splitlines()[0]
        return ValueError(
            f"data.where={self.expression!r}: polars cannot do this ({reason}); give a SQL "
            "condition over the columns, as: length(prompt) < 2000 AND lang = 'py'"
        )
