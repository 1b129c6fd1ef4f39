"""The plan of a run: its input, cut into parts. It is stored in run.json.

pipeline/plan/build.py makes it.
"""

import base64
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from engine.errors import UserError
from pipeline.input.files import InputFile
from pipeline.input.parts import Part, joined
from pipeline.run_folder.files import exists, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import NOTHING_KEPT, output_schema
from pipeline.run_folder.share import Share
from pipeline.stats.versions import git_revision, library_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does: which rows of which files, in which parts, with which model and settings."""

    files: list[InputFile]
    parts: list[Part]
    prompt_columns: list[str]
    """Columns that prompts are made of."""
    read_schema: pa.Schema
    """All columns that are read: carried, for prompts, for settings, for data.where and for ids."""
    carried: list[str]
    """Input columns that go to the output, by their names in the input."""
    overrides: dict[str, str]
    """Setting -> the column by which rows override it."""
    model_path: str
    model_revision: str | None
    """The commit on the hub; None for a checkpoint that does not come from there."""
    fingerprint: dict[str, Any]
    """All that must be the same when the run is resumed (pipeline/plan/fingerprint.py)."""
    kept_schema: pa.Schema | None = None
    """The output's columns that hold the prompts (pipeline/prompt/kept.py); None without
    prompt.keep."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Carried column -> its name in the output, if that is another."""
    num_first: int | None = None
    """With data.part_minutes: how many parts are timed before the later ones are joined into
    larger ones (pipeline/plan/pace.py). None: no parts are joined."""
    num_joined: int | None = None
    """How many parts, as they were cut, each later part is made of. None: not decided yet."""

    why_part_rows: str = ""
    """Why the plan chose this data.part_rows; empty if the config gave it."""

    @property
    def is_final(self) -> bool:
        """Whether the parts stay as they are: none of them is still to be joined."""
        return self.num_first is None or self.num_joined is not None

    @property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self.parts)

    @property
    def num_outcomes(self) -> int:
        """Output rows."""
        return sum(part.num_outcomes for part in self.parts)

    @property
    def parts_note(self) -> str:
        """What messages add to the number of parts while that number is not final."""
        if self.is_final:
            return ""
        return f" (all but the first {self.num_first} will be joined into larger ones)"

    @property
    def size_note(self) -> str:
        """What messages add to the number of parts if the plan chose their size."""
        if not self.why_part_rows:
            return ""
        rows = self.fingerprint["data.part_rows"]
        return f" of up to {rows:,} rows (data.part_rows=null chooses so: {self.why_part_rows})"

    @property
    def output_schema(self) -> pa.Schema:
        carried = (
            self.read_schema.field(name).with_name(self.renamed.get(name, name))
            for name in self.carried
        )
        return output_schema(pa.schema(carried), self.kept_schema or NOTHING_KEPT)

    def carried_of(self, rows: pa.Table) -> pa.Table:
        """The carried columns of rows that were read, with their names in the output."""
        names = [self.renamed.get(name, name) for name in self.carried]
        return rows.select(self.carried).rename_columns(names)

    def joined(self, num_joined: int) -> "Plan":
        """The plan with its final parts: after the first ones, up to `num_joined` are joined into
        one."""
        assert not self.is_final, "the parts are joined already"
        first, rest = self.parts[: self.num_first], self.parts[self.num_first :]
        return replace(self, parts=[*first, *joined(rest, num_joined)], num_joined=num_joined)

    def of_share(self, share: Share | None) -> "Plan":
        """The plan with the parts of this share alone, of which each keeps its number
        (Part.index); all of them for None."""
        if share is None:
            return self
        assert self.is_final, "parts that are to be joined cannot be divided"
        return replace(self, parts=[part for part in self.parts if share.has(part.index)])

    def to_json(self) -> str:
        """The text of run.json. Beside the plan's fields it has some that only people read."""
        raw = {name: getattr(self, name) for name in self.__dataclass_fields__}
        raw |= {
            "files": [asdict(file) for file in self.files],
            "parts": [
                [part.file, part.first_row, part.num_read, part.num_rows, part.num_outcomes]
                for part in self.parts
            ],
            "read_schema": _encoded(self.read_schema),
            "kept_schema": None if self.kept_schema is None else _encoded(self.kept_schema),
            "output_columns": {its.name: str(its.type) for its in self.output_schema},
            "num_rows": self.num_rows,
            "num_outcomes": self.num_outcomes,
            "versions": library_versions(),
            "git_revision": git_revision(),
            "planned_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        fields = (f" {json.dumps(name)}: {_indented(name, value)}" for name, value in raw.items())
        return "{\n" + ",\n".join(fields) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        raw = json.loads(text)
        raw |= {
            "files": [InputFile.from_dict(file) for file in raw["files"]],
            "parts": [Part(index, *part) for index, part in enumerate(raw["parts"])],
            "read_schema": _decoded(raw["read_schema"]),
            "kept_schema": _decoded(raw["kept_schema"]) if raw.get("kept_schema") else None,
        }
        # An earlier version had fewer fields; those without a default make it no plan.
        return cls(**{name: raw[name] for name in cls.__dataclass_fields__ if name in raw})


def _indented(name: str, value: Any) -> str:
    """A field's value as JSON: one part a line, else one value a line."""
    if name != "parts":
        return json.dumps(value, indent=1).replace("\n", "\n ")
    return "[\n" + ",\n".join(f"  {json.dumps(part)}" for part in value) + "\n ]"


def _encoded(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize()).decode()


def _decoded(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def existing_plan(folder: RunFolder) -> Plan | None:
    """The plan in run.json, or None if there is no run.json.

    Raises:
        UserError: run.json does not hold a plan of this version.
    """
    return load(folder) if exists(folder.plan_file) else None


def load(folder: RunFolder) -> Plan:
    """The plan in run.json, its parts joined as pace.json says, if that exists.

    Raises:
        UserError: run.json does not exist, or does not hold a plan of this version.
        OSError: it cannot be read.
    """
    try:
        plan = Plan.from_json(read_text(folder.plan_file))
        num_joined = None if plan.is_final else read_num_joined(folder)
        return plan if num_joined is None else plan.joined(num_joined)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{folder.plan_file}: {error.strerror or 'is not there'}; name the output folder of a "
            "run"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.plan_file}: not a plan of this version of the pipeline ({error!r}); "
            "give another output"
        ) from error


def read_num_joined(folder: RunFolder) -> int | None:
    """How many parts are joined into one, from pace.json; None before pipeline/plan/pace.py has
    decided it."""
    if not exists(folder.pace_file):
        return None
    return int(json.loads(read_text(folder.pace_file))["num_joined"])
