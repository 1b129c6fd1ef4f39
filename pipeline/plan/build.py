"""Makes the plan: inspects the input, cuts it into parts and writes run.json.

Rank 0 does this at every start. If the run folder already holds a plan, the settings and files must
still have the same fingerprint, and the parts stay as they were cut.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import UserError
from pipeline.config.job import DataConfig, JobConfig
from pipeline.input.columns import common_columns
from pipeline.input.files import Declared, InputFile, inspect_all, stamps_of
from pipeline.input.listing import Found, list_inputs, names_of
from pipeline.input.parts import Part, cut, cut_counted
from pipeline.input.row_counts import count_rows
from pipeline.input.row_settings import SettingsReader
from pipeline.plan import pace, part_size
from pipeline.plan.choice import Choice, choose
from pipeline.plan.fingerprint import check_same, differing, fingerprint
from pipeline.plan.part_size import PartSize
from pipeline.plan.rehearsal import rehearse
from pipeline.plan.run_json import Plan, existing_plan
from pipeline.prompt.columns import checked_columns
from pipeline.run_folder.layout import RunFolder
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
    part_rows = part_size.given_rows(config, before)
    return _new_plan(config, checkpoint, files, declared, part_rows, num_workers)


def _new_plan(
    config: JobConfig,
    checkpoint: Path,
    files: list[InputFile],
    declared: list[Declared],
    part_rows: int | None,
    num_workers: int,
) -> Plan:
    if not any(file.num_rows for file in files):  # then JSON Lines have no columns either
        raise UserError(_no_rows(config.data, files))
    files, columns = common_columns(files, declared)
    choice = choose(config, files, columns, checked_columns(columns, config.prompt))
    say(note for name, note in columns.texts.items() if name in choice.read_schema.names)
    settings_reader = SettingsReader(config.generation, choice.overrides)
    rehearse(files, choice, settings_reader)
    size, parts = _parts(config, files, choice, settings_reader, part_rows, num_workers)
    revision = _revision(checkpoint)
    return Plan(
        files=files,
        parts=parts,
        prompt_columns=choice.prompts,
        kept_schema=choice.kept_schema,
        read_schema=choice.read_schema,
        carried=choice.carried,
        renamed=choice.renamed,
        overrides=choice.overrides,
        model_path=config.model.path,
        model_revision=revision,
        fingerprint=fingerprint(
            config, files, checkpoint, revision, size.rows, choice.prompts, choice.overrides
        ),
        num_first=pace.num_first(config, size.rows, len(parts), num_workers),
        num_joined=None,
        why_part_rows=size.why,
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
    fields = _fingerprint_as_before(before, config, checkpoint, files)
    if differing(before.fingerprint, fields):
        return None
    now = [
        replace(old, path=new.path, stamp=new.stamp)
        for old, new in zip(before.files, files, strict=True)
    ]
    return replace(before, files=now, model_path=config.model.path, fingerprint=fields)


def _fingerprint_as_before(
    before: Plan, config: JobConfig, checkpoint: Path, files: list[InputFile]
) -> dict[str, Any]:
    """The fingerprint of this job with these files, if what the plan chooses by itself (the columns
    of prompts, those that override settings, and the rows of a part unless the config says) is as
    in the plan `before`."""
    part_rows, columns = part_size.given_rows(config, before), before.prompt_columns
    revision, overrides = _revision(checkpoint), before.overrides
    return fingerprint(config, files, checkpoint, revision, part_rows, columns, overrides)


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
    fields = _fingerprint_as_before(before, config, checkpoint, files)
    if differing(before.fingerprint, fields):
        return None
    return replace(before, files=files, model_path=config.model.path, fingerprint=fields)


def _revision(checkpoint: Path) -> str | None:
    """The commit on the hub, None for other checkpoints. The hub's cache keeps each commit in
    snapshots/COMMIT."""
    return checkpoint.name if checkpoint.parent.name == "snapshots" else None


def pin(plan: Plan, folder: RunFolder, is_first: bool = False) -> bool:
    """Write the plan to run.json, or check that the plan which is already there is the same.

    `is_first`: there was none when this plan was begun. If there is one now, nothing is checked and
    the answer is False: another launch has come meanwhile (and gone, or it does another share), and
    what its plan has chosen, such as the size of parts, is to be taken over by planning again.

    Raises:
        UserError: the folder holds another run, or files that are not of a run.
    """
    if not is_first and (before := existing_plan(folder)):
        check_same(before.fingerprint, plan.fingerprint, folder)
        return True
    check_is_free(folder)
    return folder.write_new_text(folder.plan_file, plan.to_json())


def _parts(
    config: JobConfig,
    files: list[InputFile],
    choice: Choice,
    settings_reader: SettingsReader,
    part_rows: int | None,
    num_workers: int,
) -> tuple[PartSize, list[Part]]:
    """Cut the input into parts, of `part_rows` rows or as many as their number suggests, and count
    their output rows.

    Only the columns that this depends on are read: those of data.where, of ids, and the override
    columns if rows can differ in their number of output rows. If there are none, no row is read.
    """
    data, where = config.data, choice.where
    names = [*choice.ids, *(where.columns if where else [])]
    names += settings_reader.columns if settings_reader.needs_count else []
    if names:
        counted = count_rows(
            files,
            pa.schema([choice.read_schema.field(name) for name in dict.fromkeys(names)]),
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
        raise UserError(_no_rows(data, files))
    return size, parts


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
