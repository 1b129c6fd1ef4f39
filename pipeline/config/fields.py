"""Which fields does a job have? Their names, types, defaults and meanings, from the dataclasses.

The command line checks names against this list, and docs/config.md is written from it.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from pipeline.config.job import COMPONENTS, SECTIONS, JobConfig
from pipeline.config.slurm import SlurmConfig

GROUPS = ("model", "decoding", "cache", "engine", "settings")
"""Fields of JobConfig that GROUP=NAME fills from a file in conf/GROUP. `settings` is filled with
the name itself, and its file adds to the others (pipeline/launch/named_settings.py)."""
PATHS = ("data.path", "model.path", "output")
"""Fields that hold paths, in which `~` is the user's home folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    name: str
    """As on the command line: `data.path`, `engine.soft.enabled`."""
    hint: Any
    """Its type."""
    default: Any
    """MISSING if it has none."""
    owner: Any
    """The dataclass that it is a field of."""

    @property
    def meaning(self) -> str:
        """The text below it in its dataclass; may be empty."""
        return _meanings(self.owner).get(self.name.rpartition(".")[2], "")

    @property
    def takes_text(self) -> bool:
        """Whether it takes a text, or a list of texts."""
        return str in _options(self.hint) or self.takes_list

    @property
    def takes_list(self) -> bool:
        return list[str] in _options(self.hint)


def sections() -> dict[str, list[Field]]:
    """The fields by their place: "" (the job itself), `data`, ..., `decoding=threshold`, ...

    Of a field of a component (`decoding.threshold`), each option that has it has its own entry.
    """
    nested = {*SECTIONS, *COMPONENTS}
    found = {"": [its for its in _fields(JobConfig, "") if its.name not in nested]}
    found |= {name: list(_fields(cls, f"{name}.")) for name, cls in SECTIONS.items()}
    for name, options in COMPONENTS.items():
        for option, cls in options.items():
            found[f"{name}={option}"] = list(_fields(cls, f"{name}."))
    return found


def all_fields() -> dict[str, Field]:
    """Every field by its name."""
    every = [field for section in sections().values() for field in section]
    return {field.name: field for field in every}


def slurm_fields() -> dict[str, Field]:
    """The fields that only jobs.submit has, by their names: `slurm.partition`, ..."""
    return {field.name: field for field in _fields(SlurmConfig, "slurm.")}


def meaning_of(cls: type) -> str:
    """A dataclass's docstring up to what it raises, on one line."""
    text = (inspect.getdoc(cls) or "").split("\n\nRaises:")[0]
    return " ".join(text.split())


def _fields(cls: Any, prefix: str) -> Iterator[Field]:
    """The fields of a dataclass, those of a nested dataclass in its place."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type) and field.default is not MISSING:
            yield from _fields(hint, f"{prefix}{field.name}.")
            continue
        name = f"{prefix}{field.name}"
        yield Field(name=name, hint=hint, default=field.default, owner=cls)


@cache
def _meanings(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for before, node in zip(body.body, body.body[1:], strict=False):
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not (is_text and isinstance(before, ast.AnnAssign)):
                continue
            assert isinstance(before.target, ast.Name)
            assert isinstance(node, ast.Expr)
            assert isinstance(node.value, ast.Constant)
            found[before.target.id] = " ".join(str(node.value.value).split())
    return found


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_args(hint) and hint != list[str] else (hint,)
