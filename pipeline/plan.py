"""What is to be done? Cut into parts once, in run.json; every later start must want the same."""

import base64
import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.asked import Asker, own_columns
from pipeline.config import JobConfig, PromptConfig
from pipeline.files import exists, read_text
from pipeline.fingerprint import check_same, differing, fingerprint
from pipeline.folder import RunFolder
from pipeline.inputs import InputFile, common_schema, inspect_all, list_inputs, names_of, stamps_of
from pipeline.parts import Part, cut, cut_counted
from pipeline.prompt import prompt_columns
from pipeline.scan import counted
from pipeline.versions import git_revision, library_versions
from pipeline.where import Where
from pipeline.write import OWN_COLUMNS, check_writable, output_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    files: list[InputFile]
    parts: list[Part]
    prompt_columns: list[str]
    """Those that a prompt is made of."""
    read_schema: pa.Schema
    """Columns to read: those carried, and of all that the job looks at the others."""
    carried: list[str]
    overrides: dict[str, str]
    """Setting -> the column by which rows override it."""
    model_path: str
    model_revision: str | None
    """The hub's commit; None for a folder."""
    fingerprint: dict[str, Any]

    @property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self.parts)

    @property
    def num_outcomes(self) -> int:
        """Output rows."""
        return sum(part.num_outcomes for part in self.parts)

    @property
    def output_schema(self) -> pa.Schema:
        return output_schema(pa.schema([self.read_schema.field(name) for name in self.carried]))

    def to_json(self) -> str:
        """One field per line and one part per line, for whoever reads it or compares two."""
        raw = {name: getattr(self, name) for name in self.__dataclass_fields__}
        raw |= {
            "files": [asdict(file) for file in self.files],
            "parts": [
                [part.file, part.first_row, part.num_read, part.num_rows, part.num_outcomes]
                for part in self.parts
            ],
            "read_schema": base64.b64encode(self.read_schema.serialize()).decode(),
            "output_columns": {field.name: str(field.type) for field in self.output_schema},
            "num_rows": self.num_rows,
            "num_outcomes": self.num_outcomes,
            "versions": library_versions(),
            "git_revision": git_revision(),
            "planned_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return json.dumps(raw, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        raw = json.loads(text)
        raw |= {
            "files": [InputFile(**file) for file in raw["files"]],
            "parts": [Part(index, *part) for index, part in enumerate(raw["parts"])],
            "read_schema": pa.ipc.read_schema(pa.py_buffer(base64.b64decode(raw["read_schema"]))),
        }
        return cls(**{name: raw[name] for name in cls.__dataclass_fields__})


def make_plan(config: JobConfig, checkpoint: Path, before: Plan | None = None) -> Plan:
    """Look at the input and cut it. `before` is the plan in the run folder, if there is one: where
    nothing has changed, nothing is read or counted again.

    Raises:
        ValueError: the input cannot be read, or lacks what the job needs.
    """
    paths = list_inputs(config.data.path)
    stamps = stamps_of(paths)
    if before is not None and (same := _as_before(before, config, checkpoint, paths, stamps)):
        return same
    files, schemas = inspect_all(paths, stamps)
    schema = common_schema(files, schemas)
    prompts = _prompt_columns(schema, config.prompt)
    overrides = own_columns(schema, config.columns)
    where = None if config.data.where is None else Where(config.data.where, schema)
    ids = _id_columns(schema, config.data.id_column)
    carried = _carried(schema.names, config.data.carry, [*overrides.values(), *ids])
    check_writable(output_schema(pa.schema([schema.field(name) for name in carried])))
    fields = fingerprint(config, files, checkpoint, _revision(checkpoint))
    if before is not None and not differing(before.fingerprint, fields):
        parts = before.parts
    else:
        parts = _parts(config, files, schema, overrides, where)
    looked_at_too = [*overrides.values(), *(where.columns if where else []), *ids]
    read = dict.fromkeys([*carried, *prompts, *looked_at_too])
    return Plan(
        files=files,
        parts=parts,
        prompt_columns=prompts,
        read_schema=pa.schema([schema.field(name) for name in read]),
        carried=carried,
        overrides=overrides,
        model_path=config.model.path,
        model_revision=_revision(checkpoint),
        fingerprint=fields,
    )


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


def planned_before(folder: RunFolder) -> Plan | None:
    """The plan in run.json, if there is one.

    Raises:
        ValueError: what is there is not a plan of this version.
    """
    return load(folder) if exists(folder.plan_file) else None


def pin(plan: Plan, folder: RunFolder) -> None:
    """Write the plan to run.json, or find it there already.

    Raises:
        ValueError: another run is there.
    """
    if before := planned_before(folder):
        check_same(before.fingerprint, plan.fingerprint, folder)
        return
    if folder.parts_done():
        raise ValueError(
            f"output={folder.path}: data/ holds parts, but there is no run.json to say of what; "
            "give another output"
        )
    folder.write_text(folder.plan_file, plan.to_json())


def parts_left(plan: Plan, folder: RunFolder) -> list[Part]:
    """Those whose file does not stand in data/."""
    done = folder.parts_done()
    return [part for part in plan.parts if part.index not in done]


def load(folder: RunFolder) -> Plan:
    """The plan in run.json.

    Raises:
        ValueError: it is not there, or not a plan of this version.
    """
    try:
        return Plan.from_json(read_text(folder.plan_file))
    except OSError as error:
        raise ValueError(
            f"{folder.plan_file}: {error.strerror or error}; name the output folder of a run"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder.plan_file}: not a plan of this version of the pipeline ({error!r}); "
            "give another output"
        ) from error


def _parts(
    config: JobConfig,
    files: list[InputFile],
    schema: pa.Schema,
    overrides: dict[str, str],
    where: Where | None,
) -> list[Part]:
    """Cut, and each with its output rows; only the columns that these depend on are read."""
    data, asker = config.data, Asker(config.generation, overrides)
    names = _id_columns(schema, data.id_column) + (where.columns if where else [])
    names += asker.columns if asker.needs_count else []
    if names:
        asked_of = pa.schema([schema.field(name) for name in dict.fromkeys(names)])
        batches = counted(
            files,
            asked_of,
            asker=asker,
            where=where,
            id_column=data.id_column,
            limit=data.limit,
        )
        parts = cut_counted(batches, data.part_rows)
    else:
        parts = cut(files, data.part_rows, data.limit, asker.num_samples)
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
