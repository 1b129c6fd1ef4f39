"""Makes the plan: inspects the input, cuts it into parts and writes run.json.

Rank 0 does this at every start. If the run folder already holds a plan, the settings and files must
still have the same fingerprint, and the parts stay as they were cut.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from engine.errors import UserError
from pipeline.config.job import DataConfig, JobConfig, PromptConfig
from pipeline.input.columns import Columns, common_columns
from pipeline.input.files import Declared, InputFile, inspect_all, stamps_of
from pipeline.input.listing import Found, list_inputs, names_of
from pipeline.input.parts import Part, cut, cut_counted
from pipeline.input.row_counts import count_rows
from pipeline.input.row_settings import SettingsReader
from pipeline.plan import pace
from pipeline.plan.choice import Choice, choose
from pipeline.plan.fingerprint import check_same, differing, fingerprint
from pipeline.plan.rehearsal import rehearse
from pipeline.plan.run_json import Plan, existing_plan
from pipeline.prompt.prompter import prompt_columns
from pipeline.run_folder.layout import RunFolder


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
    listing = list_inputs(config.data.path, config.output)
    stamps = stamps_of(listing.paths)
    say(listing.notes)
    if before is not None and (
        unchanged := _unchanged(before, config, checkpoint, listing.files, stamps)
    ):
        return unchanged
    files, declared = inspect_all(listing.files, stamps)
    if before is not None and (same := _same_files(before, config, checkpoint, files)):
        return same
    return _new_plan(config, checkpoint, files, declared, num_workers)


def _new_plan(
    config: JobConfig,
    checkpoint: Path,
    files: list[InputFile],
    declared: list[Declared],
    num_workers: int,
) -> Plan:
    files, columns = common_columns(files, declared)
    choice = choose(config, files, columns, _prompt_columns(columns, config.prompt))
    say(note for name, note in columns.texts.items() if name in choice.read_schema.names)
    settings_reader = SettingsReader(config.generation, choice.overrides)
    rehearse(files, choice, settings_reader)
    parts = _parts(config, files, choice, settings_reader)
    return Plan(
        files=files,
        parts=parts,
        prompt_columns=choice.prompts,
        read_schema=choice.read_schema,
        carried=choice.carried,
        renamed=choice.renamed,
        overrides=choice.overrides,
        model_path=config.model.path,
        model_revision=_revision(checkpoint),
        fingerprint=fingerprint(config, files, checkpoint, _revision(checkpoint)),
        num_first=pace.num_first(config, len(parts), num_workers),
        num_joined=None,
    )


def say(notes: Iterable[str]) -> None:
    """Tell the user what is done with the input without being asked for."""
    for note in notes:
        print(note, file=sys.stderr, flush=True)


def _same_files(
    before: Plan, config: JobConfig, checkpoint: Path, files: list[InputFile]
) -> Plan | None:
    """The plan `before` with the files' present paths and stamps, if their contents and the
    settings are the same; otherwise None. Its columns stay as they are: a later version may choose
    others."""
    if not any(file.keys for file in before.files):  # an earlier version knew no key=value folders
        files = [replace(file, keys={}) for file in files]
    fields = fingerprint(config, files, checkpoint, _revision(checkpoint))
    if differing(before.fingerprint, fields):
        return None
    now = [
        replace(old, path=new.path, stamp=new.stamp)
        for old, new in zip(before.files, files, strict=True)
    ]
    return replace(before, files=now, model_path=config.model.path, fingerprint=fields)


def _unchanged(
    before: Plan, config: JobConfig, checkpoint: Path, found: list[Found], stamps: list[str | None]
) -> Plan | None:
    """The plan `before` with the files' present paths, if the file system says that no file has
    changed and the fingerprint is the same; otherwise None. It lets a job resume without reading
    any input."""
    if None in stamps or [file.stamp for file in before.files] != stamps:
        return None
    if [file.name for file in before.files] != names_of([file.path for file in found]):
        return None
    pairs = list(zip(before.files, found, strict=True))
    if any(new.keys.get(key) != value for old, new in pairs for key, value in old.keys.items()):
        return None
    files = [replace(old, path=new.path) for old, new in pairs]
    fields = fingerprint(config, files, checkpoint, _revision(checkpoint))
    if differing(before.fingerprint, fields):
        return None
    return replace(before, files=files, model_path=config.model.path, fingerprint=fields)


def _revision(checkpoint: Path) -> str | None:
    """The commit on the hub, None for other checkpoints. The hub's cache keeps each commit in
    snapshots/COMMIT."""
    return checkpoint.name if checkpoint.parent.name == "snapshots" else None


def pin(plan: Plan, folder: RunFolder) -> Plan:
    """Write the plan to run.json, or check that the plan which is already there is the same. If its
    parts have been joined since `plan` was made (by an earlier launch that was still ending), they
    are joined here too.

    Raises:
        UserError: the folder holds another run, or parts of an unknown one.
    """
    if before := existing_plan(folder):
        check_same(before.fingerprint, plan.fingerprint, folder)
        if before.num_joined is not None and not plan.is_final:
            return plan.joined(before.num_joined)
        return plan
    if folder.parts_done():
        raise UserError(
            f"output={folder.path}: data/ holds parts, but there is no run.json that says "
            "which run made them; give another output"
        )
    folder.write_text(folder.plan_file, plan.to_json())
    return plan


def _parts(
    config: JobConfig, files: list[InputFile], choice: Choice, settings_reader: SettingsReader
) -> list[Part]:
    """Cut the input into parts and count their output rows.

    Only the columns that this depends on are read: those of data.where, of ids, and the override
    columns if rows can differ in their number of output rows. If there are none, no row is read.
    """
    data, where = config.data, choice.where
    names = [*choice.ids, *(where.columns if where else [])]
    names += settings_reader.columns if settings_reader.needs_count else []
    if names:
        batches = count_rows(
            files,
            pa.schema([choice.read_schema.field(name) for name in dict.fromkeys(names)]),
            settings_reader=settings_reader,
            where=where,
            id_column=data.id_column,
            limit=data.limit,
        )
        parts = cut_counted(batches, data.part_rows)
    else:
        parts = cut(files, data.part_rows, data.limit, settings_reader.num_samples)
    if not parts:
        raise UserError(_no_rows(data, files))
    return parts


def _no_rows(data: DataConfig, files: list[InputFile]) -> str:
    num_rows = sum(file.num_rows for file in files)
    there = f"data.path={data.path}: no rows"
    if not num_rows:
        return f"{there} in {len(files)} files; name files with at least one row"
    if data.where is None:
        return f"{there} that did not fail, of {num_rows} in {len(files)} files; name another run"
    return (
        f"{there} that data.where={data.where!r} takes, of {num_rows} in {len(files)} files; "
        "loosen the condition (it is not true where a column is null)"
    )


def _prompt_columns(schema: Columns, config: PromptConfig) -> list[str]:
    """The columns that prompts are made of.

    Raises:
        UserError: the data lacks one of them, or a template names a column that is not text or
            numbers.
    """
    column, default, available = config.column, PromptConfig().column, schema.names
    # The default may be missing (prompt.messages_column is used then); a column that the user has
    # named may not.
    if column not in available and column != default:
        raise UserError(
            f"prompt.column={column!r}: not in the data, which has {', '.join(available)}; "
            "set prompt.column to one of these"
        )
    chosen = prompt_columns(available, config)
    for name in chosen if config.template is not None else []:
        if pa.types.is_nested(schema.field(name).type):
            raise UserError(
                f"prompt.template: the column {name!r} is of type {schema.field(name).type}, which "
                "cannot be put into a text; name a column of text or numbers"
            )
    return chosen
