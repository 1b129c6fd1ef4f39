"""Turns a row into the token ids of its prompt, or into the reason why it has none.

A row holds either a text (one user turn through the chat template, or raw) or a list of messages
(always through the chat template). A job's template may put several columns into one text; it may
place special tokens, the columns' own text cannot (engine/text/chat.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.text.chat import ChatTokenizer, PromptError, check_not_blank
from pipeline.config.job import PromptConfig
from pipeline.config.template import PROMPT, fields_of, fill


def prompt_columns(available: Sequence[str], config: PromptConfig) -> list[str]:
    """The columns that make a prompt: those that the template names; without a template, `column`
    if it exists, else `messages_column`.

    Raises:
        UserError: one of these columns is missing from `available`.
    """
    has = f"which has {', '.join(available)}"
    if config.template is None:
        for name in (config.column, config.messages_column):
            if name in available:
                return [name]
        raise UserError(
            f"prompt.column={config.column!r} and prompt.messages_column="
            f"{config.messages_column!r}: neither is in the data, {has}; set prompt.column to one "
            "of these"
        )
    names = [config.column if field == PROMPT else field for field in fields_of(config.template)]
    missing = [name for name in names if name not in available]
    if missing:
        raise UserError(
            f"prompt.template: {{{'}, {'.join(missing)}}} not in the data, {has}; name some of "
            "these, set prompt.column for {prompt}, or write {{...}} for braces that are text"
        )
    return names


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
            UserError: prompt.chat=true and there is no chat template, or no tokenizer.
        """
        self.config = config
        self.max_positions = max_positions
        self.chat = ChatTokenizer(folder, chat_template)
        self.tokenizer = self.chat.tokenizer
        if config.chat and not self.chat.has_chat_template:
            raise UserError(
                f"prompt.chat=true: {folder} has no chat template (chat_template.jinja, or "
                "chat_template in tokenizer_config.json); set prompt.chat=false or add one"
            )

    def token_ids(self, row: Mapping[str, Any], max_new_tokens: int = 0) -> list[int]:
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
        try:
            names = prompt_columns(list(row), self.config)
        except UserError as error:
            raise PromptError(str(error)) from None
        is_filled, first = self.config.template is not None, row[names[0]]
        if not is_filled and isinstance(first, list | tuple):
            ids = self.chat.conversation(names[0], first, self.config.system)
        else:
            ids = self._ids_of_texts({name: _text(name, row[name], is_filled) for name in names})
        if len(ids) > room:
            raise PromptError(
                f"{', '.join(names)}: {len(ids)} tokens, {len(ids) - room} more than the {room} "
                f"that fit with max_new_tokens={max_new_tokens} into the model's context of "
                f"{self.max_positions}; shorten the prompt or generate fewer tokens"
            )
        return ids

    def text(self, token_ids: Sequence[int]) -> str:
        return self.chat.text(token_ids)

    def _ids_of_texts(self, texts: Mapping[str, str]) -> list[int]:
        """`texts` maps each column of the prompt to its text."""
        name, contents = ", ".join(texts), list(texts.values())
        check_not_blank(name, contents)

        def filled(contents: list[str]) -> str:
            template = self.config.template
            if template is None:
                return contents[0]
            of = dict(zip(texts, contents, strict=True))
            return fill(template, {**of, PROMPT: of.get(self.config.column, "")})

        if not self.config.chat:
            return self.chat.raw(name, contents, filled)
        return self.chat.user_turn(name, contents, filled, self.config.system)


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
