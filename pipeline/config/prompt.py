"""The settings of prompts: which columns, which templates, and whether the output keeps them."""

from dataclasses import dataclass

from engine.errors import UserError
from pipeline.config.template import has_typed_break, names_none
from pipeline.tasks.formats import FORMATS

_COLUMN = "give the name of a column"
_GIVE = {
    "column": _COLUMN,
    "messages_column": _COLUMN,
    "tools_column": f"{_COLUMN}, or null",
    "chat_template": "give the name of a template or a file, or null",
}
"""The remedy for an empty text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """How a row's columns become the prompt.

    Raises:
        UserError: a field out of range.
    """

    column: str = "prompt"
    """The column with the prompt as text. If it does not exist, `messages_column` is used."""
    messages_column: str = "messages"
    """The column with the prompt as a list of {role, content}, or as the JSON of one; always uses
    the chat template."""
    tools_column: str | None = "tools"
    """The column with the functions that the model may call, as a list or as the JSON of one, for
    the chat template. Null: none; a column with the default name is optional."""
    chat: bool = True
    """Text becomes one user turn in the checkpoint's chat template; false: it is used raw."""
    add_bos: bool | None = None
    """True: every prompt begins with the tokenizer's bos_token, put in front where it is not there
    already; refused with a chat template that puts it there itself. False: raw text never begins
    with it. Null: raw text does if the tokenizer itself puts it there."""
    chat_template: str | None = None
    """The chat template: the name of one of the checkpoint's own, or a file. Null: its default one,
    and its `tool_use`, if it has one, for rows with tools."""
    optional_keys: list[str] | None = None
    """Keys of messages and tools, such as tool_call_id, that the chat template may leave out. What
    it leaves out otherwise is the row's error."""
    system: str | None = None
    """A system turn that is put before every prompt that has none."""
    template: str | None = None
    """A text with the row's columns filled in: {COLUMN} is the text of a column, {COLUMN.FIELD}
    that of a field in it, {prompt} that of `column`. {{COLUMN}} is the literal text {COLUMN}."""
    format: str | None = None
    """The prompt as a benchmark's own tools write it, in place of `column` and `template`
    (docs/benchmarks.md lists the formats). It may put turns before the prompt, begin the answer,
    and end it by texts of its own (if generation.stop is null)."""
    keep: bool = False
    """Write the prompt to the output too: as the text that was encoded (`prompt_text`), and as
    messages with the answer as the last (`messages_with_answer`)."""

    def __post_init__(self) -> None:
        for name in _GIVE:
            if getattr(self, name) == "":
                raise UserError(f"prompt.{name}='': {_GIVE[name]}")
        self._check_format()
        if self.template is not None and names_none(self.template):
            raise UserError(
                f"prompt.template={self.template!r}: names no column, so every row would be the "
                "same; write {prompt} or {COLUMN}, in single braces, where the row's text goes, or "
                "null"
            )
        for name in ("template", "system"):
            if (text := getattr(self, name)) is not None and has_typed_break(text):
                raise UserError(
                    f"prompt.{name}={text!r}: a backslash and an n, which would reach the model as "
                    "these two characters; for a line break, press Enter within the quotes, or use "
                    "a | block in YAML. (In a text that has line breaks, \\n stays as it is.)"
                )
        if self.system is not None and not self.chat:
            raise UserError(
                f"prompt.system={self.system!r} with prompt.chat=false: raw text has no system "
                "turn; put it into prompt.template, or set prompt.system=null"
            )

    def _check_format(self) -> None:
        if self.format is None:
            return
        if self.format not in FORMATS:
            raise UserError(
                f"prompt.format={self.format!r}: give one of {', '.join(FORMATS)}, or null"
            )
        if self.template is not None:
            raise UserError(
                f"prompt.format={self.format} with prompt.template={self.template!r}: each writes "
                "the whole prompt; set one of them to null"
            )
        if FORMATS[self.format].turns is not None and not self.chat:
            raise UserError(
                f"prompt.format={self.format} with prompt.chat=false: its examples are turns of a "
                "conversation, which raw text has not; choose another format, or prompt.chat=true"
            )
