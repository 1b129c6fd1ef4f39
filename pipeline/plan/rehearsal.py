"""Tries all later steps on the first two rows, before anything is written or computed.

A check that only asks for types knows some of what the steps cannot do; the steps themselves know
all of it. So two rows of the input go through them: condition, settings, ids, the output's table,
replacing rows of a part, sorting, Parquet and back.
"""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.request import FinishReason, Result
from pipeline.input.errors import first_line
from pipeline.input.files import InputFile
from pipeline.input.reader import PartReader, ids_of
from pipeline.input.row_settings import SettingsReader
from pipeline.input.utf8 import with_valid_utf8
from pipeline.plan.choice import Choice
from pipeline.plan.retry import replace_rows
from pipeline.run_folder.output_rows import Outcome, output_schema, output_table

NUM_ROWS = 2


def rehearse(files: Sequence[InputFile], choice: Choice, settings_reader: SettingsReader) -> None:
    """Send the first rows of the input through all later steps.

    Raises:
        UserError: a step cannot handle a column; the message names it and the file.
    """
    index = next((i for i, file in enumerate(files) if file.num_rows), None)
    if index is None:
        return
    file = files[index]
    reader = PartReader(list(files), choice.read_schema)
    rows = reader.rows(index, 0, min(NUM_ROWS, file.num_rows))
    settings_reader.read(rows)
    if choice.where is not None:
        rows.filter(choice.where.takes(rows))
    for name in choice.ids:
        ids_of(with_valid_utf8(rows.select([name]))[0][name])
    if _fault(rows.select(choice.carried)) is None:
        return
    for name in choice.carried:
        if fault := _fault(rows.select([name])):
            raise UserError(
                f"data.path={file.path}: the column {name!r} of type {rows[name].type} cannot be "
                f"carried to the output ({fault}); leave it out with data.carry=[...], or give it "
                "another type"
            )


def _fault(carried: pa.Table) -> str | None:
    """Why these columns cannot go to the output; None if they can. Names do not count."""
    carried = carried.rename_columns([f"input {i}" for i in range(carried.num_columns)])
    try:
        _write_and_replace(carried)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        return first_line(error)
    return None


def _write_and_replace(carried: pa.Table) -> None:
    """What happens to the rows of a part, from its results to a second try of one of them.

    Raises:
        ValueError: Parquet gives back other columns than were written.
        pa.ArrowException: something cannot be done with one of these types.
    """
    carried, _ = with_valid_utf8(carried)
    num, schema = carried.num_rows, output_schema(carried.schema)
    result = Result(request_id=0, finish_reason=FinishReason.EOS, num_prompt_tokens=1, seed=1)
    outcomes = {place: Outcome(result, "text") for place in range(num)}
    ids = [str(row) for row in range(num)]
    table = output_table(schema, carried, ids, [1] * num, outcomes)
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    written.seek(0)
    # Like the summary, this looks at the schema that Parquet gives back.
    read = pq.ParquetFile(written).read()
    for field in schema:
        if not read.schema.field(field.name).type.equals(field.type):
            raise ValueError(f"Parquet makes it {read.schema.field(field.name).type}")
    replaced = replace_rows(read, table, [0])
    replaced.take(pc.sort_indices(replaced["row_id"])).validate()
