"""How does a row become token ids, or a reason why not; and generated ids text again?

A row holds either a text (through the chat template as one user turn, or raw) or a list of messages
(always through the chat template); a template may name several columns. What a row says is text:
where it spells a special token it never becomes that token (engine/text/special_text.py). The job's
own `template` may spell them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from engine.text.special_text import SpecialText
from engine.text.tokenizer import load_tokenizer
from pipeline.config.job import PromptConfig
from pipeline.config.template import PROMPT, fields_of, fill

Message = dict[str, str]


class RowError(Exception):
    """A fault of one row: its message goes into the row's `error` column and the job goes on."""


def prompt_columns(available: Sequence[str], config: PromptConfig) -> list[str]:
    """The columns that a prompt is made of: the template's; without one, `column` where it exists,
    else `messages_column`.

    Raises:
        ValueError: the data has none, or not all, of them.
    """
    has = f"which has {', '.join(available)}"
    if config.template is None:
        for name in (config.column, config.messages_column):
            if name in available:
                return [name]
        raise ValueError(
            f"prompt.column={config.column!r} and prompt.messages_column="
            f"{config.messages_column!r}: neither is in the data, {has}; set prompt.column to one "
            "of these"
        )
    names = [config.column if field == PROMPT else field for field in fields_of(config.template)]
    missing = [name for name in names if name not in available]
    if missing:
        raise ValueError(
            f"prompt.template: {{{'}, {'.join(missing)}}} not in the data, {has}; name some of "
            "these, set prompt.column for {prompt}, or write {{...}} for braces that are text"
        )
    return names


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

    def token_ids(self, row: Mapping[str, Any], max_new_tokens: int = 0) -> list[int]:
        """The row's prompt, if the model's context holds it and `max_new_tokens` behind it; the row
        has at least the columns that it is made of (prompt_columns).

        Raises:
            RowError: what is wrong with the row.
        """
        room = self.max_positions - max_new_tokens
        if room < 1:
            raise RowError(
                f"max_new_tokens={max_new_tokens}: leaves no room for a prompt in the model's "
                f"context of {self.max_positions}; lower it"
            )
        try:
            names = prompt_columns(list(row), self.config)
        except ValueError as error:
            raise RowError(str(error)) from None
        is_filled, first = self.config.template is not None, row[names[0]]
        if not is_filled and isinstance(first, list | tuple):
            ids = self._ids_of_messages(names[0], check_messages(names[0], first))
        else:
            ids = self._ids_of_texts({name: _text(name, row[name], is_filled) for name in names})
        if len(ids) > room:
            raise RowError(
                f"{', '.join(names)}: {len(ids)} tokens, {len(ids) - room} more than the {room} "
                f"that fit with max_new_tokens={max_new_tokens} into the model's context of "
                f"{self.max_positions}; shorten the prompt or generate fewer tokens"
            )
        return ids

    def text(self, token_ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens skipped, spaces as they are."""
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=True)
        return text

    def _ids_of_texts(self, texts: Mapping[str, str]) -> list[int]:
        """Of text columns: the only one, or those that the template names."""
        name = ", ".join(texts)
        if not any(text.strip() for text in texts.values()):
            what = "only white space" if any(texts.values()) else "empty"
            raise RowError(f"{name}: {what}; give the row a prompt or leave it out")

        def filled(contents: list[str]) -> str:
            template = self.config.template
            if template is None:
                return contents[0]
            of = dict(zip(texts, contents, strict=True))
            return fill(template, {**of, PROMPT: of.get(self.config.column, "")})

        if not self.config.chat:
            return self._encode(name, list(texts.values()), filled, raw=True)
        system = [] if self.config.system is None else [self.config.system]

        def rendered(contents: list[str]) -> str:
            turns = [{"role": "system", "content": text} for text in contents[: len(system)]]
            return self._rendered(
                [*turns, {"role": "user", "content": filled(contents[len(system) :])}]
            )

        return self._encode(name, [*system, *texts.values()], rendered, raw=False)

    def _ids_of_messages(self, name: str, messages: list[Message]) -> list[int]:
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

        def rendered(contents: list[str]) -> str:
            turns = zip(messages, contents, strict=True)
            return self._rendered([{**turn, "content": content} for turn, content in turns])

        return self._encode(name, [m["content"] for m in messages], rendered, raw=False)

    def _rendered(self, turns: list[Message]) -> str:
        chat = self.tokenizer.apply_chat_template
        return str(chat(turns, tokenize=False, add_generation_prompt=True))

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


def _text(name: str, value: Any, is_filled: bool) -> str:
    """A cell as it goes into a prompt; into a template's place also a number."""
    if value is None:
        raise RowError(f"{name}: null; give the row a prompt or leave it out")
    if isinstance(value, str):
        return value
    if is_filled and isinstance(value, bool | int | float):
        return str(value)
    kind = type(value).__name__
    raise RowError(f"{name}: {kind}; must be text or a list of {{role, content}} messages")


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
