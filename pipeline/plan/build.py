"""How is the plan made? Once the input is looked at and cut; later starts must want the same."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from pipeline.config.job import JobConfig, PromptConfig
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
from pipeline.plan import pace
from pipeline.plan.fingerprint import check_same, differing, fingerprint
from pipeline.plan.run_json import Plan, planned_before
from pipeline.prompt.prompter import prompt_columns
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import OWN_COLUMNS, check_writable, output_schema


def make_plan(
    config: JobConfig, checkpoint: Path, before: Plan | None = None, num_workers: int = 1
) -> Plan:
    """Look at the input and cut it. `before` is the plan in the run folder, if there is one: where
    nothing has changed, nothing is read or counted again. `num_workers`: to data.part_minutes.

    Raises:
        ValueError: the input cannot be read, or lacks what the job needs.
    """
    stamps = stamps_of(paths := list_inputs(config.data.path))
    if before is not None and (same := _as_before(before, config, checkpoint, paths, stamps)):
        return same
    files, schemas = inspect_all(paths, stamps)
    schema = common_schema(files, schemas)
    prompts = _prompt_columns(schema, config.prompt)
    overrides = override_columns(schema, config.columns)
    where = None if config.data.where is None else Where(config.data.where, schema)
    ids = _id_columns(schema, config.data.id_column)
    carried = _carried(schema.names, config.data.carry, [*overrides.values(), *ids])
    check_writable(output_schema(_only(schema, carried)))
    fields = fingerprint(config, files, checkpoint, _revision(checkpoint))
    if before is not None and not differing(before.fingerprint, fields):
        parts, num_first, num_joined = before.parts, before.num_first, before.num_joined
    else:
        parts = _parts(config, files, schema, overrides, where)
        num_first, num_joined = pace.num_first(config, len(parts), num_workers), None
    looked_at_too = [*overrides.values(), *(where.columns if where else []), *ids]
    return Plan(
        files=files,
        parts=parts,
        prompt_columns=prompts,
        read_schema=_only(schema, [*carried, *prompts, *looked_at_too]),
        carried=carried,
        overrides=overrides,
        model_path=config.model.path,
        model_revision=_revision(checkpoint),
        fingerprint=fields,
        num_first=num_first,
        num_joined=num_joined,
    )


def _only(schema: pa.Schema, names: list[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in dict.fromkeys(names)])


def _as_before(
    before: Plan, config: JobConfig, checkpoint: Path, paths: list[str], stamps: list[str | None]
) -> Plan | None:
    """The plan in the run folder, if the file system says that all files are as they were then and
    nothing else has changed either: so a start reads no input to go on."""
    if None in stamps or [file.stamp for file in before.files] != stamps:
        return None
    if [file.name for file in before.files] != names_of(paths):
        return None
    files = [replace(file, path=path) for file, path in zip(before.files, paths, strict=True)]
    fields = fingerprint(config, files, checkpoint, _revision(checkpoint))
    if differing(before.fingerprint, fields):
        return None
    return replace(before, files=files, model_path=config.model.path, fingerprint=fields)


def _revision(checkpoint: Path) -> str | None:
    """The hub's commit, which is what it calls the folder of a snapshot."""
    return checkpoint.name if checkpoint.parent.name == "snapshots" else None


def pin(plan: Plan, folder: RunFolder) -> Plan:
    """Write the plan to run.json, or find it there already, its parts perhaps joined meanwhile by
    a launch that was still ending.

    Raises:
        ValueError: another run is there.
    """
    if before := planned_before(folder):
        check_same(before.fingerprint, plan.fingerprint, folder)
        if before.num_joined is not None and not plan.is_final:
            return plan.joined(before.num_joined)
        return plan
    if folder.parts_done():
        raise ValueError(
            f"output={folder.path}: data/ holds parts, but there is no run.json to say of what; "
            "give another output"
        )
    folder.write_text(folder.plan_file, plan.to_json())
    return plan


def _parts(
    config: JobConfig,
    files: list[InputFile],
    schema: pa.Schema,
    overrides: dict[str, str],
    where: Where | None,
) -> list[Part]:
    """Cut, and each with its output rows; only the columns that these depend on are read."""
    data, settings_reader = config.data, SettingsReader(config.generation, overrides)
    names = _id_columns(schema, data.id_column) + (where.columns if where else [])
    names += settings_reader.columns if settings_reader.needs_count else []
    if names:
        asked_of = _only(schema, names)
        batches = count_rows(
            files,
            asked_of,
            settings_reader=settings_reader,
            where=where,
            id_column=data.id_column,
            limit=data.limit,
        )
        parts = cut_counted(batches, data.part_rows)
    else:
        parts = cut(files, data.part_rows, data.limit, settings_reader.num_samples)
    if not parts:
        taken = "" if where is None else f" that data.where={data.where!r} takes"
        raise ValueError(f"data.path={data.path}: no rows{taken} in {len(files)} files")
    return parts


def _id_columns(schema: pa.Schema, name: str | None) -> list[str]:
    if name is None:
        return []
    if name not in schema.names:
        raise ValueError(
            f"data.id_column={name!r}: not in the data, which has {', '.join(schema.names)}; name "
            "one of these, or null"
        )
    kind = schema.field(name).type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise ValueError(
            f"data.id_column={name!r}: of type {kind}; ids are text or whole numbers: name another "
            "column, or null"
        )
    return [name]


def _prompt_columns(schema: pa.Schema, config: PromptConfig) -> list[str]:
    asked, usual, available = config.column, PromptConfig().column, schema.names
    if asked not in available and asked != usual:
        raise ValueError(
            f"prompt.column={asked!r}: not in the data, which has {', '.join(available)}; "
            "set prompt.column to one of these"
        )
    chosen = prompt_columns(available, config)
    for name in chosen if config.template is not None else []:
        if pa.types.is_nested(schema.field(name).type):
            raise ValueError(
                f"prompt.template: the column {name!r} is of type {schema.field(name).type}, and a "
                "template's places take text; name a column of text or numbers"
            )
    return chosen


def _carried(available: list[str], asked: list[str] | None, overriding: list[str]) -> list[str]:
    """The columns asked for; else all, but for an overriding one whose place in the output is
    taken: the output's own `seed` says what the column `seed` said."""
    missing = [name for name in asked or [] if name not in available]
    if missing:
        raise ValueError(
            f"data.carry: {', '.join(missing)} not in the data, which has {', '.join(available)}; "
            "name some of these, or null for all"
        )
    if asked is not None:
        return asked
    return [name for name in available if name not in overriding or name not in OWN_COLUMNS]
