"""What is to be done? The input, cut into parts: run.json, which pipeline/plan/build.py makes."""

import base64
import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.input.files import InputFile
from pipeline.input.parts import Part, joined
from pipeline.run_folder.files import exists, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import output_schema
from pipeline.stats.versions import git_revision, library_versions


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
    num_first: int | None = None
    """Parts that are done and timed before those behind them are joined to larger ones
    (pipeline/plan/pace.py); None: none are joined."""
    num_joined: int | None = None
    """Of the parts behind them each is so many parts as they were cut; None: not known yet."""

    @property
    def is_final(self) -> bool:
        """Whether the parts are those that will stand in data/."""
        return self.num_first is None or self.num_joined is not None

    @property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self.parts)

    @property
    def num_outcomes(self) -> int:
        """Output rows."""
        return sum(part.num_outcomes for part in self.parts)

    @property
    def what_changes(self) -> str:
        """To be said behind the number of parts."""
        return "" if self.is_final else f" (fewer, larger ones behind the first {self.num_first})"

    @property
    def output_schema(self) -> pa.Schema:
        return output_schema(pa.schema([self.read_schema.field(name) for name in self.carried]))

    def joined(self, num_joined: int) -> "Plan":
        """With the parts behind the first joined."""
        assert not self.is_final, "the parts are joined already"
        first, rest = self.parts[: self.num_first], self.parts[self.num_first :]
        return replace(self, parts=[*first, *joined(rest, num_joined)], num_joined=num_joined)

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


def planned_before(folder: RunFolder) -> Plan | None:
    """The plan in run.json, if there is one.

    Raises:
        ValueError: what is there is not a plan of this version.
    """
    return load(folder) if exists(folder.plan_file) else None


def load(folder: RunFolder) -> Plan:
    """The plan in run.json, joined as pace.json says where that is there.

    Raises:
        ValueError: it is not there, or not a plan of this version.
    """
    try:
        plan = Plan.from_json(read_text(folder.plan_file))
        num_joined = None if plan.is_final else pace_in(folder)
        return plan if num_joined is None else plan.joined(num_joined)
    except OSError as error:
        raise ValueError(
            f"{folder.plan_file}: {error.strerror or error}; name the output folder of a run"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder.plan_file}: not a plan of this version of the pipeline ({error!r}); "
            "give another output"
        ) from error


def pace_in(folder: RunFolder) -> int | None:
    """How many parts are joined to one, as pipeline/plan/pace.py decided; None before that."""
    if not exists(folder.pace_file):
        return None
    return int(json.loads(read_text(folder.pace_file))["num_joined"])
