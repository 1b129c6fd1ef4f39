"""Turns a row into its prompt, or into the reason why it has none.

A row holds either a text (one user turn through the chat template, or raw) or messages (always
through the chat template), as a list or as JSON. A job's template may put several columns into one
text; it may place special tokens, the columns' own text cannot (engine/text/chat.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from engine.errors import UserError
from engine.text.chat import ChatTokenizer, Encoded, PromptError, check_not_blank
from engine.text.messages import ChatOptions, is_messages_text
from pipeline.config.prompt import PromptConfig
from pipeline.config.template import Field
from pipeline.prompt.columns import PromptColumns, is_list, prompt_columns
from pipeline.tasks.formats.base import Format


class Prompt(NamedTuple):
    """The prompt of one row."""

    ids: list[int]
    text: str
    """What was encoded."""
    messages: Any
    """The row's messages as the row holds them, or the text of its user turn."""
    is_conversation: bool
    opening: str = ""
    """How the answer begins, which is part of the prompt."""


class Prompter:
    """Makes the prompts of one job, row by row, with one checkpoint's tokenizer."""

    def __init__(
        self,
        folder: Path,
        config: PromptConfig,
        max_positions: int,
        chat_template: str | None = None,
    ) -> None:
        """`chat_template` is used only if the checkpoint in `folder` has none of its own.

        Raises:
            UserError: prompt.chat=true and there is no chat template, it is broken or leaves out
                prompt.system; or there is no tokenizer.
        """
        self.config = config
        self.max_positions = max_positions
        options = ChatOptions(
            chat_template=config.chat_template,
            optional_keys=tuple(config.optional_keys or ()),
            add_bos=config.add_bos,
            section="prompt.",
            tools=config.tools_column or "tools",
            without_tools="set prompt.tools_column=null",
        )
        self._folder = folder
        self.chat = ChatTokenizer(folder, chat_template, options)
        self.tokenizer = self.chat.tokenizer
        self._columns: dict[tuple[str, ...], PromptColumns] = {}
        """By the names of a row's columns."""
        if config.chat:
            self._check_template("prompt.chat=true", "set prompt.chat=false or add one")

    def check_columns(self, names: Sequence[str], schema: pa.Schema) -> None:
        """Check that there is a chat template if prompts of these columns need one.

        Raises:
            UserError: there is none, or it is broken.
        """
        config, first = self.config, names[0]
        is_messages = first != config.column or is_list(schema.field(first).type)
        if config.template is None and config.format is None and is_messages:
            self._check_template(
                f"{first}: a column of messages",
                "name a column of text (prompt.column), or add one",
            )

    def _check_template(self, what: str, remedy: str) -> None:
        if not self.chat.has_chat_template:
            raise UserError(
                f"{what}: {self._folder} has no chat template (chat_template.jinja, or "
                f"chat_template in tokenizer_config.json); {remedy}"
            )
        self.chat.check_user_turn(self.config.system)

    def token_ids(self, row: Mapping[str, Any], max_new_tokens: int = 0) -> list[int]:
        """The token ids of the row's prompt (see `prompt`)."""
        return self.prompt(row, max_new_tokens).ids

    def prompt(self, row: Mapping[str, Any], max_new_tokens: int = 0) -> Prompt:
        """The row's prompt. It must fit into the model's context together with `max_new_tokens`.
        The row must have the columns named by prompt_columns.

        Raises:
            PromptError: what is wrong with the row.
        """
        room = self.max_positions - max_new_tokens
        if room < 1:
            raise PromptError(
                f"max_new_tokens={max_new_tokens}: leaves no room for a prompt in the model's "
                f"context of {self.max_positions}; lower it"
            )
        columns = self._columns_of(row)
        if columns.format is not None:
            return self._fitting(columns, self._formatted(columns, columns.format, row), room)
        is_conversation = columns.template is None and self._is_conversation(
            columns.prompts[0], row
        )
        if is_conversation:
            name = columns.prompts[0]
            tools = None if columns.tools is None else row[columns.tools]
            encoded = self.chat.conversation(name, row[name], self.config.system, tools)
            messages: Any = row[name]
        else:
            encoded, messages = self._of_texts(columns, row)
        prompt = Prompt(encoded.ids, encoded.text, messages, is_conversation)
        return self._fitting(columns, prompt, room)

    def text(self, token_ids: Sequence[int]) -> str:
        return self.chat.text(token_ids)

    def _fitting(self, columns: PromptColumns, prompt: Prompt, room: int) -> Prompt:
        """The prompt, if it has at most `room` tokens."""
        if (num := len(prompt.ids)) > room:
            length = self.max_positions - room
            raise PromptError(
                f"{', '.join(columns.prompts)}: {num} tokens, {num - room} more than the {room} "
                f"that fit with max_new_tokens={length} into the model's context of "
                f"{self.max_positions}; shorten the prompt or generate fewer tokens"
            )
        return prompt

    def _formatted(self, columns: PromptColumns, its: Format, row: Mapping[str, Any]) -> Prompt:
        """The prompt as the job's format writes it."""
        name = ", ".join(columns.prompts)
        if null := [column for column in columns.prompts if row[column] is None]:
            raise PromptError(f"{', '.join(null)}: null; give the row a prompt or leave it out")
        text = its.text(row)
        opening = "" if its.opening is None else its.opening(row)
        if not self.config.chat:
            encoded = self.chat.raw(name, [text, opening], "".join)
            return Prompt(encoded.ids, encoded.text, text, False, opening)
        before = () if its.turns is None else its.turns()
        turns = [*before, {"role": "user", "content": text}]
        encoded = self.chat.conversation(name, turns, self.config.system, opening=opening)
        return Prompt(encoded.ids, encoded.text, turns, True, opening)

    def _columns_of(self, row: Mapping[str, Any]) -> PromptColumns:
        names = tuple(row)
        if names not in self._columns:
            try:
                self._columns[names] = prompt_columns(names, self.config)
            except UserError as error:
                raise PromptError(str(error)) from None
        return self._columns[names]

    def _is_conversation(self, name: str, row: Mapping[str, Any]) -> bool:
        """Whether the row's cell holds messages. Text in the column of messages is their JSON; in
        another column, such text is refused, because either may be meant."""
        cell, config = row[name], self.config
        if not isinstance(cell, str):
            return isinstance(cell, list | tuple)
        if name != config.column:
            return True
        if not is_messages_text(cell):
            return False
        if name != config.messages_column:
            raise PromptError(
                f"{name}: the JSON of a list of messages; set prompt.messages_column={name} to "
                f"give them as turns, or prompt.template={{{name}}} to give them as text"
            )
        return True

    def _of_texts(self, columns: PromptColumns, row: Mapping[str, Any]) -> tuple[Encoded, str]:
        """The prompt from texts, and the text of its user turn."""
        template, config = columns.template, self.config
        if template is None:
            names = columns.prompts
            contents = [_text(names[0], row[names[0]], False)]
        else:
            fields = template.fields
            names = [field.name for field in fields]
            contents = [_text(field.name, _value(row, field), True) for field in fields]
        check_not_blank(name := ", ".join(names), contents)

        def filled(contents: list[str]) -> str:
            if template is None:
                return contents[0]
            return template.fill(dict(zip(fields, contents, strict=True)))

        if not config.chat:
            encoded = self.chat.raw(name, contents, filled)
        else:
            tools = None if columns.tools is None else row[columns.tools]
            encoded = self.chat.user_turn(name, contents, filled, config.system, tools)
        return encoded, filled(contents)


def _value(row: Mapping[str, Any], field: Field) -> Any:
    """A column's cell, or a field within it; null if the struct is null."""
    value, inner = row[field.column], field.inner
    while inner and value is not None:
        if not isinstance(value, Mapping):
            raise PromptError(f"{field.name}: {type(value).__name__} has no field {inner!r}")
        step = max((key for key in value if f"{inner}.".startswith(f"{key}.")), key=len, default="")
        if not step:
            raise PromptError(f"{field.name}: no field {inner!r}; the row has {', '.join(value)}")
        value, inner = value[step], inner[len(step) + 1 :]
    return value


def _text(name: str, value: Any, is_filled: bool) -> str:
    """A cell as text. Numbers are accepted only where a template is filled in."""
    if value is None:
        raise PromptError(f"{name}: null; give the row a prompt or leave it out")
    if isinstance(value, str):
        return value
    if is_filled and isinstance(value, bool | int | float):
        return str(value)
    kind = type(value).__name__
    raise PromptError(f"{name}: {kind}; must be text or a list of {{role, content}} messages")
