"""How does a row become token ids, or a reason why not; and generated ids text again?

A row holds either a text (through the chat template as one user turn, or raw) or a list of messages
(always through the chat template). What a row says is text: where it spells a special token it
never becomes that token (pipeline/special_text.py). The job's own `template` may spell them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from pipeline.config import PromptConfig
from pipeline.special_text import SpecialText
from pipeline.tokenizer import load_tokenizer

Message = dict[str, str]


class RowError(Exception):
    """A fault of one row: its message goes into the row's `error` column and the job goes on."""


def choose_column(available: Sequence[str], config: PromptConfig) -> str:
    """The column that prompts are read from: `column` where it exists, else `messages_column`."""
    for name in (config.column, config.messages_column):
        if name in available:
            return name
    raise ValueError(
        f"prompt.column={config.column!r} and prompt.messages_column={config.messages_column!r}: "
        f"neither is in the data; set prompt.column to one of {', '.join(available)}"
    )


class Prompter:
    """Tokenizer and chat template of one checkpoint, applied row by row."""

    def __init__(
        self,
        folder: Path,
        config: PromptConfig,
        max_positions: int,
        chat_template: str | None = None,
    ) -> None:
        """`chat_template` is for a checkpoint that has none of its own."""
        self.config = config
        self.max_positions = max_positions
        self.tokenizer = load_tokenizer(folder)
        self.tokenizer.chat_template = self.tokenizer.chat_template or chat_template
        if config.chat and not self.tokenizer.chat_template:
            raise ValueError(
                f"prompt.chat=true: {folder} has no chat template (chat_template.jinja, or "
                "chat_template in tokenizer_config.json); set prompt.chat=false or add one"
            )
        self._backend = self.tokenizer.backend_tokenizer
        # A tokenizer.json may hold both; what is too long must be seen, not cut.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._special = SpecialText(self._backend)

    @property
    def columns(self) -> list[str]:
        """The columns a prompt may come from, the first that a row has counts."""
        return [self.config.column, self.config.messages_column]

    def token_ids(self, row: Mapping[str, Any], max_new_tokens: int = 0) -> list[int]:
        """The row's prompt, if the model's context holds it and `max_new_tokens` behind it.

        Raises:
            RowError: what is wrong with the row.
        """
        room = self.max_positions - max_new_tokens
        if room < 1:
            raise RowError(
                f"max_new_tokens={max_new_tokens}: leaves no room for a prompt in the model's "
                f"context of {self.max_positions}; lower it"
            )
        name = next((name for name in self.columns if name in row), None)
        if name is None:
            raise RowError(f"{' and '.join(self.columns)}: not in the row; set prompt.column")
        value = row[name]
        if isinstance(value, str):
            ids = self._ids_of_text(name, value)
        elif isinstance(value, list | tuple):
            ids = self._ids_of_messages(name, check_messages(name, value))
        elif value is None:
            raise RowError(f"{name}: null; give the row a prompt or leave it out")
        else:
            kind = type(value).__name__
            raise RowError(f"{name}: {kind}; must be text or a list of {{role, content}} messages")
        if len(ids) > room:
            raise RowError(
                f"{name}: {len(ids)} tokens, {len(ids) - room} more than the {room} that fit with "
                f"max_new_tokens={max_new_tokens} into the model's context of "
                f"{self.max_positions}; shorten the prompt or generate fewer tokens"
            )
        return ids

    def text(self, token_ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens skipped, spaces as they are."""
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=True)
        return text

    def _ids_of_text(self, name: str, prompt: str) -> list[int]:
        if not prompt.strip():
            what = "only white space" if prompt else "empty"
            raise RowError(f"{name}: {what}; give the row a prompt or leave it out")
        if self.config.chat:
            turn = [{"role": "user", "content": prompt}]
            return self._ids_of_messages(name, turn, self.config.template)
        return self._encode(
            name, [prompt], lambda contents: _fill(self.config.template, contents[0]), raw=True
        )

    def _ids_of_messages(
        self, name: str, messages: list[Message], template: str | None = None
    ) -> list[int]:
        if not self.tokenizer.chat_template:
            raise RowError(
                f"{name}: a list of messages, and the model has no chat template; use a text column"
            )
        for place, message in enumerate(messages):
            if self._special.found_in(message["role"]):
                raise RowError(
                    f"{name}[{place}].role: {message['role']!r} spells a special token; must be "
                    "user, assistant or system"
                )
        if self.config.system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.config.system}, *messages]

        def render(contents: list[str]) -> str:
            filled = [*contents[:-1], _fill(template, contents[-1])]
            turns = [
                {**turn, "content": content} for turn, content in zip(messages, filled, strict=True)
            ]
            chat = self.tokenizer.apply_chat_template
            return str(chat(turns, tokenize=False, add_generation_prompt=True))

        return self._encode(name, [m["content"] for m in messages], render, raw=False)

    def _encode(
        self, name: str, contents: list[str], render: Callable[[list[str]], str], raw: bool
    ) -> list[int]:
        """One encode of the rendered text. `raw`: nobody has placed bos yet, the tokenizer does."""
        try:
            if any(self._special.found_in(content) for content in contents):
                hidden = [self._special.hide(content) for content in contents]
                return self._special.encode(render(hidden), add_special_tokens=raw)
            ids: list[int] = self._backend.encode(render(contents), add_special_tokens=raw).ids
        except TemplateError as error:
            raise RowError(
                f"{name}: the chat template refuses it: {error}; fix the turns"
            ) from None
        except (TypeError, UnicodeError):
            if _is_unicode(contents):
                raise
            raise RowError(f"{name}: holds half a surrogate pair; make it valid Unicode") from None
        return ids


def _fill(template: str | None, prompt: str) -> str:
    # Not str.format: prompts and templates hold braces of their own.
    return prompt if template is None else template.replace("{prompt}", prompt)


def _is_unicode(texts: list[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_messages(name: str, value: Sequence[Any]) -> list[Message]:
    """Messages with role and content only, or a RowError that says which one is wrong."""
    if not value:
        raise RowError(f"{name}: an empty list; give the row at least one message")
    messages = []
    for place, message in enumerate(value):
        if not isinstance(message, Mapping):
            kind = type(message).__name__
            raise RowError(f"{name}[{place}]: {kind}; must be a message of role and content")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                kind = type(message.get(key)).__name__
                raise RowError(f"{name}[{place}].{key}: {kind}; must be text")
        if not message["role"]:
            raise RowError(f"{name}[{place}].role: empty; must be user, assistant or system")
        messages.append({"role": message["role"], "content": message["content"]})
    if messages[-1]["role"] == "assistant":
        raise RowError(f"{name}: ends with an assistant turn; leave out the answer to generate")
    if not messages[-1]["content"].strip():
        raise RowError(f"{name}[{len(messages) - 1}].content: blank; give the last turn a content")
    return messages
