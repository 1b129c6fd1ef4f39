"""Which columns of the data do prompts come from, and can they be prompts?"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

import pyarrow as pa

from engine.errors import UserError
from pipeline.config.prompt import PromptConfig
from pipeline.config.template import Template
from pipeline.tasks.formats import FORMATS
from pipeline.tasks.formats.base import Format

DEFAULT_COLUMN, DEFAULT_TOOLS = PromptConfig().column, PromptConfig().tools_column


class PromptColumns(NamedTuple):
    template: Template | None
    """prompt.template, read for these columns."""
    prompts: list[str]
    """The columns that a prompt is made of: those that the template names; without one, `column` if
    it exists, else `messages_column`."""
    tools: str | None
    """The column with the tools; None: rows have none."""
    format: Format | None = None
    """prompt.format."""

    @property
    def names(self) -> list[str]:
        return self.prompts if self.tools is None else [*self.prompts, self.tools]


def prompt_columns(available: Sequence[str], config: PromptConfig) -> PromptColumns:
    """
    Raises:
        UserError: one of the columns is missing from `available`.
    """
    has = f"which has {', '.join(available)}"
    if config.format is not None:
        its = FORMATS[config.format]
        prompts = its.columns_in(available)
        if missing := [name for name in prompts if name not in available]:
            raise UserError(
                f"prompt.format={config.format}: reads the columns {', '.join(prompts)}, and "
                f"{', '.join(missing)} not in the data, {has}; choose the format of this data, or "
                "null"
            )
        return PromptColumns(None, prompts, None, its)
    if config.template is not None:
        template = Template(config.template, available, config.column)
        prompts = list(dict.fromkeys(field.column for field in template.fields))
        return PromptColumns(template, prompts, _tools_column(available, config, prompts))
    for name in (config.column, config.messages_column):
        if name in available:
            return PromptColumns(None, [name], _tools_column(available, config, [name]))
    raise UserError(
        f"prompt.column={config.column!r} and prompt.messages_column="
        f"{config.messages_column!r}: neither is in the data, {has}; set prompt.column to one "
        "of these"
    )


def checked_columns(schema: pa.Schema, config: PromptConfig) -> PromptColumns:
    """The columns that prompts of such data are made of.

    Raises:
        UserError: the data lacks one of them, or a template names a column or field that is not
            text or numbers.
    """
    # The default columns may be missing; one that the user has named may not.
    for name, column, default in (
        ("column", config.column, config.column if config.format else DEFAULT_COLUMN),
        ("tools_column", config.tools_column, DEFAULT_TOOLS),
    ):
        if column not in (None, default, *schema.names):
            raise UserError(
                f"prompt.{name}={column!r}: not in the data, which has {', '.join(schema.names)}; "
                f"set prompt.{name} to one of these"
            )
    found = prompt_columns(schema.names, config)
    for field in found.template.fields if found.template is not None else []:
        _check_fillable(field.name, field.column, field.inner, schema)
    return found


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(is_one(kind) for is_one in (*kinds, *views))


def _tools_column(
    available: Sequence[str], config: PromptConfig, prompts: Sequence[str]
) -> str | None:
    """None too if the prompts do not go through a chat template, or hold the tools themselves."""
    name = config.tools_column
    is_raw = not config.chat and (config.template is not None or prompts[0] == config.column)
    if name is None or name not in available or name in prompts:
        return None
    if is_raw and name == DEFAULT_TOOLS:
        return None
    if is_raw:
        raise UserError(
            f"prompt.tools_column={name!r} with prompt.chat=false: raw text has no tools; put the "
            "column into prompt.template, or set prompt.tools_column=null"
        )
    return name


def _check_fillable(name: str, column: str, inner: str, schema: pa.Schema) -> None:
    kind = schema.field(column).type
    while inner:
        fields = [kind.field(i).name for i in range(kind.num_fields)] if _is_struct(kind) else []
        step = max((f for f in fields if f"{inner}.".startswith(f"{f}.")), key=len, default=None)
        if step is None:
            has = f"has the fields {', '.join(fields)}" if fields else f"is of type {kind}"
            near = get_close_matches(inner, fields, 1, 0.5)
            hint = f"; the nearest to {inner!r} is {near[0]!r}" if near else ""
            raise UserError(
                f"prompt.template: {{{name}}}: no field {inner!r} in {column!r}, which {has}"
                f"{hint}; name one that is there, or write {{{{{name}}}}} for braces that are text"
            )
        kind, inner = kind.field(step).type, inner[len(step) + 1 :]
    if pa.types.is_nested(kind):
        fields = [kind.field(i).name for i in range(kind.num_fields)] if _is_struct(kind) else []
        more = f", such as {{{name}.{fields[0]}}}" if fields else ""
        raise UserError(
            f"prompt.template: the column {name!r} is of type {kind}, which cannot be put into a "
            f"text; name a column of text or numbers{more}"
        )


def _is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind))
