"""Makes the plan: inspects the input, cuts it into parts and writes run.json.

Rank 0 does this at every start. If the run folder already holds a plan, the settings and files must
still have the same fingerprint, and the parts stay as they were cut.
"""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from engine.errors import UserError
from pipeline.config.job import JobConfig
from pipeline.input.files import (
    InputFile,
    common_schema,
    inspect_all,
    list_inputs,
    names_of,
    stamps_of,
)
from pipeline.input.parts import Part, cut, cut_counted
from pipeline.input.row_counts import count_rows
from pipeline.input.row_settings import SettingsReader, override_columns
from pipeline.input.where import Where
from pipeline.plan import pace, part_size
from pipeline.plan.fingerprint import check_same, differing, fingerprint
from pipeline.plan.part_size import PartSize
from pipeline.plan.run_json import Plan, existing_plan
from pipeline.prompt.columns import checked_columns
from pipeline.prompt.kept import kept_schema
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import (
    NOTHING_KEPT,
    OWN_COLUMNS,
    check_writable,
    output_schema,
)
from pipeline.run_folder.strangers import check_is_free


def make_plan(
    config: JobConfig, checkpoint: Path, before: Plan | None = None, num_workers: int = 1
) -> Plan:
    """Inspect the input and cut it into parts.

    `before` is the plan in the run folder, if there is one. If neither files nor settings have
    changed since, it is returned and no input is read. If the file system cannot say that the files
    are unchanged (it keeps no time or tag, or a different one), they are inspected again, but an
    equal fingerprint still saves counting their rows. With data.part_minutes, the number of parts
    that are timed first depends on `num_workers`.

    Raises:
        UserError: the input cannot be read, or lacks what the job needs.
    """
    stamps = stamps_of(paths := list_inputs(config.data.path))
    if before is not None and (unchanged := _unchanged(before, config, checkpoint, paths, stamps)):
        return unchanged
    files, schemas = inspect_all(paths, stamps)
    schema = common_schema(files, schemas)
    prompts = checked_columns(schema, config.prompt)
    overrides = override_columns(schema, config.columns)
    where = None if config.data.where is None else Where(config.data.where, schema)
    id_columns = _id_columns(schema, config.data.id_column)
    carried = _carried(schema.names, config.data.carry, [*overrides.values(), *id_columns])
    kept = kept_schema(schema, prompts, config.prompt) if config.prompt.keep else None
    check_writable(output_schema(_only(schema, carried), kept or NOTHING_KEPT))
    part_rows = part_size.given_rows(config, before)
    revision = _revision(checkpoint)
    fields = fingerprint(config, files, checkpoint, revision, part_rows, prompts.names)
    if before is not None and not differing(before.fingerprint, fields):
        parts, num_first, num_joined = before.parts, before.num_first, before.num_joined
        why_part_rows = before.why_part_rows
    else:
        size, parts = _parts(config, files, schema, overrides, where, part_rows, num_workers)
        num_first, num_joined = pace.num_first(config, size.rows, len(parts), num_workers), None
        fields["data.part_rows"], why_part_rows = size.rows, size.why
    also_read = [*overrides.values(), *(where.columns if where else []), *id_columns]
    return Plan(
        files=files,
        parts=parts,
        prompt_columns=prompts.names,
        kept_schema=kept,
        read_schema=_only(schema, [*carried, *prompts.names, *also_read]),
        carried=carried,
        overrides=overrides,
        model_path=config.model.path,
        model_revision=_revision(checkpoint),
        fingerprint=fields,
        num_first=num_first,
        num_joined=num_joined,
        why_part_rows=why_part_rows,
    )


def _only(schema: pa.Schema, names: list[str]) -> pa.Schema:
    """The schema of the named columns, each of them once."""
    return pa.schema([schema.field(name) for name in dict.fromkeys(names)])


def _unchanged(
    before: Plan, config: JobConfig, checkpoint: Path, paths: list[str], stamps: list[str | None]
) -> Plan | None:
    """The plan `before` with the files' present paths, if the file system says that no file has
    changed and the fingerprint is the same; otherwise None. It lets a job resume without reading
    any input."""
    if None in stamps or [file.stamp for file in before.files] != stamps:
        return None
    if [file.name for file in before.files] != names_of(paths):
        return None
    files = [replace(file, path=path) for file, path in zip(before.files, paths, strict=True)]
    part_rows, columns = part_size.given_rows(config, before), before.prompt_columns
    fields = fingerprint(config, files, checkpoint, _revision(checkpoint), part_rows, columns)
    if differing(before.fingerprint, fields):
        return None
    return replace(before, files=files, model_path=config.model.path, fingerprint=fields)


def _revision(checkpoint: Path) -> str | None:
    """The commit on the hub, None for other checkpoints. The hub's cache keeps each commit in
    snapshots/COMMIT."""
    return checkpoint.name if checkpoint.parent.name == "snapshots" else None


def pin(plan: Plan, folder: RunFolder) -> None:
    """Write the plan to run.json, or check that the plan which is already there is the same.

    Raises:
        UserError: the folder holds another run, or files that are not of a run.
    """
    if before := existing_plan(folder):
        check_same(before.fingerprint, plan.fingerprint, folder)
        return
    check_is_free(folder)
    folder.write_text(folder.plan_file, plan.to_json())


def _parts(
    config: JobConfig,
    files: list[InputFile],
    schema: pa.Schema,
    overrides: dict[str, str],
    where: Where | None,
    part_rows: int | None,
    num_workers: int,
) -> tuple[PartSize, list[Part]]:
    """Cut the input into parts, of `part_rows` rows or as many as their number suggests, and count
    their output rows.

    Only the columns that this depends on are read: those of data.where, the id column, and the
    override columns if rows can differ in their number of output rows. If there are none, no row is
    read.
    """
    data, settings_reader = config.data, SettingsReader(config.generation, overrides)
    names = _id_columns(schema, data.id_column) + (where.columns if where else [])
    names += settings_reader.columns if settings_reader.needs_count else []
    if names:
        counted = count_rows(
            files,
            _only(schema, names),
            settings_reader=settings_reader,
            where=where,
            id_column=data.id_column,
            limit=data.limit,
        )
        size, batches = part_size.of_counted(counted, part_rows, num_workers)
        parts = cut_counted(batches, size.rows)
    else:
        num_rows = sum(file.num_rows for file in files)
        num_rows = num_rows if data.limit is None else min(num_rows, data.limit)
        num_outcomes = num_rows * settings_reader.num_samples
        size = part_size.of_rows(num_rows, num_outcomes, part_rows, num_workers)
        parts = cut(files, size.rows, data.limit, settings_reader.num_samples)
    if not parts:
        taken = "" if where is None else f" that data.where={data.where!r} takes"
        raise UserError(f"data.path={data.path}: no rows{taken} in {len(files)} files")
    return size, parts


def _id_columns(schema: pa.Schema, name: str | None) -> list[str]:
    """data.id_column as a list: one column, or none if it is null.

    Raises:
        UserError: the data has no such column, or one of another type than text or integers.
    """
    if name is None:
        return []
    if name not in schema.names:
        raise UserError(
            f"data.id_column={name!r}: not in the data, which has {', '.join(schema.names)}; name "
            "one of these, or null"
        )
    kind = schema.field(name).type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise UserError(
            f"data.id_column={name!r}: is of type {kind}, but ids must be text or whole numbers; "
            "name another column, or null"
        )
    return [name]


def _carried(available: list[str], carry: list[str] | None, overriding: list[str]) -> list[str]:
    """The input columns that go to the output: those named by data.carry, otherwise all. Then a
    column in `overriding` (settings and ids) is left out if it has the name of an output column:
    the output's `seed`, for example, takes the place of the input's.

    Raises:
        UserError: data.carry names a column that the data does not have.
    """
    missing = [name for name in carry or [] if name not in available]
    if missing:
        raise UserError(
            f"data.carry: {', '.join(missing)} not in the data, which has {', '.join(available)}; "
            "name some of these, or null for all"
        )
    if carry is not None:
        return carry
    return [name for name in available if name not in overriding or name not in OWN_COLUMNS]
