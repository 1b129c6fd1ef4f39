"""The schema of the output, and the output table of one part: one row per input row and sample."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.request import FinishReason, Result

COLUMNS_BEFORE = pa.schema(
    [pa.field("row_id", pa.string(), False), pa.field("sample_index", pa.int32(), False)]
)
COLUMNS_AFTER = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("token_ids", pa.list_(pa.int32()), False),
        pa.field("finish_reason", pa.string(), False),
        pa.field("error", pa.string()),
        pa.field("num_prompt_tokens", pa.int32(), False),
        pa.field("num_generated_tokens", pa.int32(), False),
        pa.field("num_iterations", pa.int32(), False),
        pa.field("num_refreshes", pa.int32(), False),
        pa.field("num_query_tokens", pa.int64(), False),
        pa.field("mean_confidence", pa.float64()),
        pa.field("seed", pa.int64(), False),
    ]
)
RESULT_COLUMNS = (
    *("error", "num_prompt_tokens", "num_iterations", "num_refreshes", "num_query_tokens"),
    *("mean_confidence", "seed"),
)
"""Columns that are copied from the fields of the same name in Result."""
_result_values = attrgetter(*RESULT_COLUMNS)
OWN_COLUMNS = (*COLUMNS_BEFORE.names, *COLUMNS_AFTER.names)
"""All columns that are not carried from the input, but for those of prompt.keep=true."""
NOTHING_KEPT = pa.schema([])


class Outcome(NamedTuple):
    """The result of one sample of one row, and its text (None if the row failed)."""

    result: Result
    text: str | None

    @property
    def failed(self) -> bool:
        return self.result.finish_reason is FinishReason.ERROR


def output_schema(carried: pa.Schema, kept: pa.Schema = NOTHING_KEPT) -> pa.Schema:
    """The schema of the output: row id, sample index, the carried columns, the prompts if they are
    kept, then all others.

    Raises:
        UserError: a carried column has the name of an output column.
    """
    clash = [name for name in carried.names if name in (*OWN_COLUMNS, *kept.names)]
    if clash:
        raise UserError(
            f"data.carry: the input's {_quoted(clash)} would collide with the output's own "
            f"{_quoted(clash)}; rename them in the input, or carry others: data.carry=[NAME, ...]"
        )
    return pa.schema([*COLUMNS_BEFORE, *carried, *kept, *COLUMNS_AFTER])


def check_writable(schema: pa.Schema) -> None:
    """Check that Parquet can hold each column, before any GPU time is spent.

    Raises:
        UserError: Parquet cannot hold a column.
    """
    for field in schema:
        try:
            pq.write_table(pa.schema([field]).empty_table(), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise UserError(
                f"data.carry: column {field.name!r} of type {field.type} cannot be written to "
                f"Parquet ({error}); carry the others: data.carry=[NAME, ...]"
            ) from error


def output_table(
    schema: pa.Schema,
    carried: pa.Table,
    row_ids: Sequence[str],
    num_samples: Sequence[int],
    outcomes: Mapping[int, Outcome],
    kept: Mapping[str, Sequence[Any]] | None = None,
) -> pa.Table:
    """A table with one row for each of `outcomes`.

    Args:
        schema: the table's schema (output_schema).
        carried: the carried columns of the part's input rows.
        row_ids: the id of each input row.
        num_samples: the number of samples of each input row.
        outcomes: position among all output rows of the part -> outcome. These rows are in input
            order, the samples of a row one after another. Some positions may be absent.
        kept: the columns of prompts, if they are kept, with a value for each of `outcomes`.
    """
    places = [(row, sample) for row, count in enumerate(num_samples) for sample in range(count)]
    places = [places[place] for place in outcomes]
    results = [outcome.result for outcome in outcomes.values()]
    columns = {
        name: carried[name].take([row for row, _ in places]) for name in carried.column_names
    }
    own: dict[str, Sequence[Any]] = {
        "row_id": [row_ids[row] for row, _ in places],
        "sample_index": [sample for _, sample in places],
        "text": [outcome.text for outcome in outcomes.values()],
        "finish_reason": [result.finish_reason.value for result in results],
        "token_ids": [result.token_ids for result in results],
        "num_generated_tokens": [len(result.token_ids) for result in results],
        **dict(zip(RESULT_COLUMNS, zip(*map(_result_values, results), strict=True), strict=True)),
    }
    own |= dict(kept or {})
    columns |= {name: pa.array(its, schema.field(name).type) for name, its in own.items()}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
