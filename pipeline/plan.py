"""What is to be done? Cut into parts once, in run.json; every later start must want the same.

    part 0            part 1            part 2      part 3
    | part_rows rows  | part_rows rows  | the rest  | part_rows rows  | ...
    | first file                                    | second file

Parts depend on the input and on data.part_rows, never on the number of workers.
"""

import base64
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import JobConfig, PromptConfig
from pipeline.fingerprint import check_same, fingerprint
from pipeline.folder import RunFolder
from pipeline.inputs import InputFile, common_schema, inspect, list_inputs, names_of
from pipeline.prompt import choose_column
from pipeline.versions import git_revision, library_versions
from pipeline.write import check_writable, output_schema


@dataclass(frozen=True, slots=True)
class Part:
    """A fixed run of rows of one input file, and its one output file."""

    index: int
    file: int
    first_row: int
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    files: list[InputFile]
    parts: list[Part]
    prompt_column: str
    read_schema: pa.Schema
    """Columns to read: those carried, and the prompt's if it is not among them."""
    carried: list[str]
    num_samples: int
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
        return self.num_rows * self.num_samples

    @property
    def output_schema(self) -> pa.Schema:
        return output_schema(pa.schema([self.read_schema.field(name) for name in self.carried]))

    def to_json(self) -> str:
        """One field per line and one part per line, for whoever reads it or compares two."""
        raw = {name: getattr(self, name) for name in self.__dataclass_fields__}
        raw |= {
            "files": [asdict(file) for file in self.files],
            "parts": [[part.file, part.first_row, part.num_rows] for part in self.parts],
            "read_schema": base64.b64encode(self.read_schema.serialize()).decode(),
            "output_columns": {field.name: str(field.type) for field in self.output_schema},
            "num_rows": self.num_rows,
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


def make_plan(config: JobConfig, checkpoint: Path) -> Plan:
    """Look at the input and cut it.

    Raises:
        ValueError: the input cannot be read, or lacks what the job needs.
    """
    paths = list_inputs(config.data.path)
    looked_at = [inspect(path, name) for path, name in zip(paths, names_of(paths), strict=True)]
    files = [file for file, _ in looked_at]
    schema = common_schema(files, [schema for _, schema in looked_at])
    prompt_column = _prompt_column(schema.names, config.prompt)
    if config.prompt.template is not None and pa.types.is_list(schema.field(prompt_column).type):
        raise ValueError(
            f"prompt.template: the column {prompt_column!r} holds messages, which no template goes "
            "around; set prompt.template=null, or prompt.column to a column of text"
        )
    carried = _carried(schema.names, config.data.carry)
    check_writable(output_schema(pa.schema([schema.field(name) for name in carried])))
    parts = cut(files, config.data.part_rows, config.data.limit)
    if not parts:
        raise ValueError(
            f"data.path={config.data.path}: no rows in {len(files)} files; name others"
        )
    read = [*carried, *([] if prompt_column in carried else [prompt_column])]
    revision = checkpoint.name if checkpoint.parent.name == "snapshots" else None
    return Plan(
        files=files,
        parts=parts,
        prompt_column=prompt_column,
        read_schema=pa.schema([schema.field(name) for name in read]),
        carried=carried,
        num_samples=config.generation.num_samples,
        model_path=config.model.path,
        model_revision=revision,
        fingerprint=fingerprint(config, files, checkpoint, revision),
    )


def cut(files: list[InputFile], part_rows: int, limit: int | None) -> list[Part]:
    parts: list[Part] = []
    left = sum(file.num_rows for file in files) if limit is None else limit
    for index, file in enumerate(files):
        num_rows = min(file.num_rows, left)
        left -= num_rows
        for first in range(0, num_rows, part_rows):
            parts.append(Part(len(parts), index, first, min(part_rows, num_rows - first)))
    return parts


def pin(plan: Plan, folder: RunFolder) -> None:
    """Write the plan to run.json, or find it there already.

    Raises:
        ValueError: another run is there.
    """
    if folder.plan_file.exists():
        check_same(load(folder).fingerprint, plan.fingerprint, folder)
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
        return Plan.from_json(folder.plan_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{folder.plan_file}: {error.strerror}; name the output folder of a run"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder.plan_file}: not a plan of this version of the pipeline ({error!r}); "
            "give another output"
        ) from error


def _prompt_column(available: list[str], config: PromptConfig) -> str:
    asked, usual = config.column, PromptConfig().column
    if asked not in available and asked != usual:
        raise ValueError(
            f"prompt.column={asked!r}: not in the data, which has {', '.join(available)}; "
            "set prompt.column to one of these"
        )
    return choose_column(available, config)


def _carried(available: list[str], asked: list[str] | None) -> list[str]:
    missing = [name for name in asked or [] if name not in available]
    if missing:
        raise ValueError(
            f"data.carry: {', '.join(missing)} not in the data, which has {', '.join(available)}; "
            "name some of these, or null for all"
        )
    return available if asked is None else asked
