"""Which columns of the input does each step need, and which go to the output, called what?"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from engine.errors import UserError
from pipeline.config.job import DataConfig, JobConfig
from pipeline.input.columns import Columns
from pipeline.input.errors import InputError
from pipeline.input.files import InputFile
from pipeline.input.row_settings import override_columns
from pipeline.input.runs import NEEDED, ROW_ID
from pipeline.input.types import TEXT, decoded_type
from pipeline.input.where import Where
from pipeline.prompt.columns import PromptColumns
from pipeline.prompt.kept import kept_schema
from pipeline.run_folder.output_rows import OWN_COLUMNS, check_names

SEED = "seed"


@dataclass(frozen=True, slots=True)
class Choice:
    """The columns of each step, by their names in the input."""

    prompts: list[str]
    """Those of prompts, and of their tools."""
    kept_schema: pa.Schema | None
    """The output's columns that hold the prompts; None without prompt.keep."""
    overrides: dict[str, str]
    """Setting -> the column by which rows override it."""
    where: Where | None
    ids: list[str]
    """data.id_column; or, for the output of earlier runs, what its rows' ids are made of."""
    carried: list[str]
    renamed: dict[str, str]
    """Carried column -> its name in the output, if that is another."""
    read_schema: pa.Schema
    """All of these, each once."""


def choose(
    config: JobConfig, files: Sequence[InputFile], columns: Columns, prompts: PromptColumns
) -> Choice:
    """
    Raises:
        UserError: a column that is needed does not exist, cannot be read or is of a wrong type, or
            two columns of the output would have the same name.
    """
    data, of_runs = config.data, any(file.run is not None for file in files)
    # The seed of an earlier run's row is that of its own result, not one for the next.
    overrides = override_columns(columns, config.columns, OWN_COLUMNS if of_runs else ())
    where = None if data.where is None else Where(data.where, columns)
    if of_runs:
        _check_needed(files, columns)
    ids = _id_columns(columns, data.id_column) + [name for name in NEEDED if of_runs]
    carried = _carried(columns.names, data, overrides)
    kept = kept_schema(columns, prompts, config.prompt) if config.prompt.keep else None
    own = (*OWN_COLUMNS, *(kept.names if kept else ()))
    renamed = _renamed(carried, columns.names, data.rename, _run_name(files), own)
    check_names({name: renamed.get(name, name) for name in carried}, kept.names if kept else ())
    _check_prompts(columns, prompts.prompts, config)
    also_read = columns.only(
        [*prompts.names, *overrides.values(), *(where.columns if where else []), *ids]
    )
    carried_schema = columns.carried(carried)
    return Choice(
        prompts=prompts.names,
        kept_schema=kept,
        overrides=overrides,
        where=where,
        ids=ids,
        carried=carried,
        renamed=renamed,
        read_schema=pa.schema(
            [*carried_schema, *(its for its in also_read if its.name not in carried)]
        ),
    )


def _id_columns(columns: Columns, name: str | None) -> list[str]:
    """data.id_column as a list: one column, or none if it is null.

    Raises:
        UserError: the data has no such column, or one of another type than text or integers.
    """
    if name is None:
        return []
    if name not in columns.names:
        raise UserError(
            f"data.id_column={name!r}: not in the data, which has {', '.join(columns.names)}; name "
            "one of these, or null"
        )
    kind = decoded_type(columns.field(name).type)
    if not (kind in TEXT or pt.is_integer(kind)):
        raise UserError(
            f"data.id_column={name!r}: is of type {kind}, but ids must be text or whole numbers; "
            "name another column, or null"
        )
    return [name]


def _carried(available: list[str], data: DataConfig, overrides: dict[str, str]) -> list[str]:
    """The input columns that go to the output: those named by data.carry, otherwise all but those
    that the output repeats: a seed that overrides the job's is the output's seed, and an id that is
    called row_id is the output's row_id.

    Raises:
        UserError: data.carry names a column that the data does not have.
    """
    missing = [name for name in data.carry or [] if name not in available]
    if missing:
        raise UserError(
            f"data.carry: {', '.join(missing)} not in the data, which has {', '.join(available)}; "
            "name some of these, or null for all"
        )
    if data.carry is not None:
        return list(dict.fromkeys(data.carry))
    kept_elsewhere = {(overrides.get(SEED), SEED), (data.id_column, ROW_ID)}
    return [name for name in available if (name, name.casefold()) not in kept_elsewhere]


def _renamed(
    carried: Collection[str],
    available: list[str],
    rename: dict[str, str] | None,
    run: str | None,
    own: Collection[str],
) -> dict[str, str]:
    """The new names of carried columns: those of data.rename; and, for columns of an earlier run
    that have the name of a column of this output (`own`), RUN_NAME.

    Raises:
        UserError: data.rename names a column that is not carried.
    """
    for name in rename or {}:
        if name not in carried:
            has = f"not in the data, which has {', '.join(available)}; name one of these"
            left_out = "not carried to the output; leave it out here, or add it to data.carry"
            raise UserError(
                f"data.rename: {name!r} is {has if name not in available else left_out}"
            )
    names = {name.casefold() for name in own}
    of_run = {} if run is None else {n: f"{run}_{n}" for n in carried if n.casefold() in names}
    return of_run | (rename or {})


def _check_needed(files: Sequence[InputFile], columns: Columns) -> None:
    """
    Raises:
        InputError: other files beside an earlier run lack the columns by which its rows are read.
    """
    faults = [columns.faults[name] for name in NEEDED if name in columns.faults]
    run = next(file.run for file in files if file.run is not None)
    if faults:
        raise InputError(
            f"{faults[0]}; other files beside an earlier run need its columns {', '.join(NEEDED)}: "
            "give them a job of their own, or take all rows of the run as they are: "
            f"data.path=[{run.path}/data, ...] columns.seed=null and a data.carry=[...] of "
            "columns that all have"
        )


def _run_name(files: Sequence[InputFile]) -> str | None:
    """The name of the earlier run that all files belong to; None if there is no such run."""
    names = {file.run.name if file.run else None for file in files}
    return names.pop() if len(names) == 1 else None


def _check_prompts(columns: Columns, prompts: list[str], config: JobConfig) -> None:
    """
    Raises:
        UserError: no value of a prompt's column could be used.
    """
    is_filled = config.prompt.template is not None
    for name in prompts:
        kind = decoded_type(columns.field(name).type)
        is_number = pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind)
        is_plain = not (pt.is_null(kind) or pt.is_nested(kind) or kind in TEXT)
        if is_plain and not (is_filled and is_number):
            field, may_be = (
                ("prompt.template", "text or numbers")
                if is_filled
                else (
                    f"prompt.column={name!r}",
                    "text or lists of messages",
                )
            )
            in_text = f', or put it into one: prompt.template="{{{name}}}"' * is_number
            raise UserError(
                f"{field}: the column {name!r} is of type {kind}, but prompts are made of "
                f"{may_be}; name a column of these{in_text}"
            )
