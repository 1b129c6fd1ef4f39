"""The prompts in the output (prompt.keep=true): as text, and as messages with the answer.

input                        messages_with_answer
a list of messages           the same list, of the same type, with one message more
the JSON of such a list      JSON again
text                         a list of {role, content}: system (if there is one), user, assistant
text without chat template   no such column
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.config.prompt import PromptConfig
from pipeline.prompt.columns import PromptColumns, is_list
from pipeline.prompt.prompter import Prompt

PROMPT_TEXT, MESSAGES = "prompt_text", "messages_with_answer"
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def kept_schema(schema: pa.Schema, columns: PromptColumns, config: PromptConfig) -> pa.Schema:
    """The columns that hold the prompts of such data, in the output."""
    first = columns.prompts[0]
    kind = schema.field(first).type
    fields = [pa.field(PROMPT_TEXT, pa.string())]
    if columns.format is not None:
        return pa.schema([*fields, *([pa.field(MESSAGES, TURNS)] if config.chat else [])])
    if columns.template is None and is_list(kind):
        fields.append(pa.field(MESSAGES, pa.list_(_with_content(kind.value_type))))
    elif columns.template is None and first == config.messages_column:
        fields.append(pa.field(MESSAGES, pa.string()))
    elif config.chat:
        fields.append(pa.field(MESSAGES, TURNS))
    return pa.schema(fields)


class PromptKeeper:
    """Makes the output's columns of prompts."""

    def __init__(self, schema: pa.Schema, system: str | None) -> None:
        """`schema` is that of `kept_schema`, `system` the job's system turn."""
        self._schema = schema
        self._system = system

    def columns(
        self, prompts: Sequence[Prompt | None], answers: Sequence[str | None]
    ) -> dict[str, list[Any]]:
        """The columns for output rows with these prompts and answers. A failed row has no answer,
        and null in both columns."""
        rows = [
            None if prompt is None or answer is None else (prompt, answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        columns: dict[str, list[Any]] = {PROMPT_TEXT: [row and row[0].text for row in rows]}
        if MESSAGES in self._schema.names:
            kind = self._schema.field(MESSAGES).type
            columns[MESSAGES] = [row and self._messages(kind, row[0], row[1]) for row in rows]
        return columns

    def _messages(self, kind: pa.DataType, prompt: Prompt, answer: str) -> Any:
        messages = prompt.messages
        is_json = not is_list(kind)
        if isinstance(messages, str):
            messages = json.loads(messages) if prompt.is_conversation else [_turn("user", messages)]
        shape = None if is_json else kind.value_type
        if self._system and _role(messages[0]) != "system":
            messages = [_shaped(_turn("system", self._system), shape), *messages]
        messages = [*messages, _shaped(_turn("assistant", prompt.opening + answer), shape)]
        return json.dumps(messages, ensure_ascii=False) if is_json else messages


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _role(message: Any) -> Any:
    return (json.loads(message) if isinstance(message, str) else message)["role"]


def _shaped(turn: dict[str, Any], kind: pa.DataType | None) -> Any:
    """A turn in the form of the column's messages: `kind` is the type of one, None JSON."""
    if kind is None:
        return turn
    if not pa.types.is_struct(kind):
        return json.dumps(turn, ensure_ascii=False)
    content = kind.field("content").type
    parts = [content.value_type] if is_list(content) else [content]
    if pa.types.is_struct(parts[0]):
        turn["content"] = {"type": "text", "text": turn["content"]}
    return {**turn, "content": [turn["content"]]} if is_list(content) else turn


def _with_content(message: pa.DataType) -> pa.DataType:
    """The type of a message that can hold an answer: a column without any content has none."""
    if not pa.types.is_struct(message):
        return message
    fields = {message.field(i).name: message.field(i).type for i in range(message.num_fields)}
    for name in ("role", "content"):
        if fields.get(name, pa.null()) == pa.null():
            fields[name] = pa.string()
    return pa.struct(list(fields.items()))
