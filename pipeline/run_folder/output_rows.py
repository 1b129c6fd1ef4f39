"""The schema of the output, and the output table of one part: one row per input row and sample."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import pyarrow as pa

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
MOST_NAMES = 12
"""The most names that a message lists."""


class Outcome(NamedTuple):
    """The result of one sample of one row, and its text (None if the row failed)."""

    result: Result
    text: str | None

    @property
    def failed(self) -> bool:
        return self.result.finish_reason is FinishReason.ERROR


def output_schema(carried: pa.Schema, kept: pa.Schema = NOTHING_KEPT) -> pa.Schema:
    """The schema of the output: row id, sample index, the carried columns, the prompts if they are
    kept, then all others."""
    return pa.schema([*COLUMNS_BEFORE, *carried, *kept, *COLUMNS_AFTER])


def check_names(carried: Mapping[str, str], kept: Collection[str] = ()) -> None:
    """Check that no two columns of the output have names that differ at most in case: engines for
    SQL take them for one. `carried` maps the input's columns to their names in the output; `kept`
    are the columns of prompt.keep.

    Raises:
        UserError: a carried column has the name of an output column, or of another one.
    """
    own = {name.casefold(): name for name in (*OWN_COLUMNS, *kept)}
    clashes = {name: own[new.casefold()] for name, new in carried.items() if new.casefold() in own}
    if clashes:
        raise UserError(
            f"data.carry: the input's {_quoted(clashes)} would collide with the output's own "
            f"{_quoted(clashes.values())}{_in_case(clashes.items())}; {_remedy(clashes, carried)}"
        )
    seen: dict[str, str] = {}
    for name, new in carried.items():
        other = seen.setdefault(new.casefold(), name)
        if other != name:
            raise UserError(
                f"data.carry: the input's {other!r} and {name!r} would collide in the output"
                f"{_in_case([(carried[other], new)])}; {_remedy([name], carried)}"
            )


def _in_case(pairs: Iterable[tuple[str, str]]) -> str:
    """A note for names that are not the same letter by letter."""
    differ = any(one != other for one, other in pairs)
    return " (engines for SQL take names that differ only in case for one)" if differ else ""


def _remedy(clashes: Collection[str], carried: Collection[str]) -> str:
    new = ",".join(f"{name}:input_{name.lower()}" for name in clashes)
    others = [name for name in carried if name not in clashes]
    kept = ", ".join(others) if len(others) <= MOST_NAMES else f"{', '.join(others[:3])}, ..."
    return f"rename: 'data.rename={{{new}}}', or leave out: 'data.carry=[{kept}]'"


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


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
