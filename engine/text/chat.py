"""Turns texts and conversations into token ids, and generated token ids back into text.

A checkpoint's tokenizer and chat template are applied here, for the job and for `engine.LLM` alike.
The content of a prompt is always text: where it spells a special token it never becomes that token
(engine/text/special_text.py). Only a template, the checkpoint's or the caller's, can place special
tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from engine.model.families import FAMILIES
from engine.model.load import read_config
from engine.text.special_text import SpecialText
from engine.text.tokenizer import check_tokens, load_tokenizer

Message = dict[str, str]
"""`role` and `content` of one turn."""
Render = Callable[[list[str]], str]
"""Puts the contents of a prompt, in their order, into the text that is encoded."""


class PromptError(Exception):
    """What is wrong with one prompt, and what to do: other prompts are not affected."""


class ChatTokenizer:
    """The tokenizer and chat template of one checkpoint."""

    def __init__(self, folder: Path, chat_template: str | None = None) -> None:
        """`chat_template` is used only if the checkpoint in `folder` has none of its own.

        Raises:
            UserError: the folder holds no tokenizer that can be read without running its code.
        """
        self.tokenizer = load_tokenizer(folder)
        self.tokenizer.chat_template = self.tokenizer.chat_template or chat_template
        self._backend = self.tokenizer.backend_tokenizer
        # tokenizer.json may ask for truncation or padding. A prompt that is too long must be
        # reported, not cut.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._special = SpecialText(self._backend)

    @classmethod
    def of_checkpoint(cls, folder: Path) -> "ChatTokenizer":
        """The tokenizer of a checkpoint folder, checked against its config.json, with its family's
        chat template if it has none of its own.

        Raises:
            UserError: no readable tokenizer or config.json, or the two contradict each other.
        """
        model = read_config(folder)
        chat = cls(folder, FAMILIES[model.family].CHAT_TEMPLATE)
        check_tokens(chat.tokenizer, model, folder)
        return chat

    @property
    def has_chat_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def raw(self, name: str, contents: Sequence[str], render: Render) -> list[int]:
        """The rendered text without chat template; the tokenizer adds BOS if it normally does.

        Raises:
            PromptError: not valid Unicode. `name` says in the message which prompt it is.
        """
        return self._encode(name, contents, render, add_special_tokens=True)

    def user_turn(
        self, name: str, contents: Sequence[str], render: Render, system: str | None = None
    ) -> list[int]:
        """The rendered text as one user turn, after a system turn if `system` is given.

        Raises:
            PromptError: not valid Unicode, or the chat template refuses it.
        """
        before = [] if system is None else [system]

        def rendered(texts: list[str]) -> str:
            turns = [{"role": "system", "content": text} for text in texts[: len(before)]]
            return self._rendered(
                [*turns, {"role": "user", "content": render(texts[len(before) :])}]
            )

        return self._encode(name, [*before, *contents], rendered, add_special_tokens=False)

    def conversation(self, name: str, messages: Any, system: str | None = None) -> list[int]:
        """A list of messages, each a mapping with `role` and `content`. `system` is put first
        unless the first message is a system turn.

        Raises:
            PromptError: the messages are malformed, or the chat template is missing or refuses
                them.
        """
        turns = check_messages(name, messages)
        if not self.has_chat_template:
            raise PromptError(
                f"{name}: a list of messages, and the model has no chat template; use a text column"
            )
        for place, turn in enumerate(turns):
            if self._special.found_in(turn["role"]):
                raise PromptError(
                    f"{name}[{place}].role: {turn['role']!r} spells a special token; must be "
                    "user, assistant or system"
                )
        if system and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": system}, *turns]

        def rendered(texts: list[str]) -> str:
            pairs = zip(turns, texts, strict=True)
            return self._rendered([{**turn, "content": text} for turn, text in pairs])

        contents = [turn["content"] for turn in turns]
        return self._encode(name, contents, rendered, add_special_tokens=False)

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of generated token ids: special tokens are left out, spaces are kept."""
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=True)
        return text

    def _rendered(self, turns: list[Message]) -> str:
        chat = self.tokenizer.apply_chat_template
        return str(chat(turns, tokenize=False, add_generation_prompt=True))

    def _encode(
        self, name: str, contents: Sequence[str], render: Render, add_special_tokens: bool
    ) -> list[int]:
        try:
            if any(self._special.found_in(content) for content in contents):
                hidden = [self._special.hide(content) for content in contents]
                return self._special.encode(render(hidden), add_special_tokens)
            rendered = render(list(contents))
            ids: list[int] = self._backend.encode(
                rendered, add_special_tokens=add_special_tokens
            ).ids
        except TemplateError as error:
            raise PromptError(
                f"{name}: the chat template refuses it: {error}; fix the turns"
            ) from None
        except (TypeError, UnicodeError):
            if _is_unicode(contents):
                raise
            raise PromptError(
                f"{name}: holds half a surrogate pair; make it valid Unicode"
            ) from None
        return ids


def check_messages(name: str, value: Any) -> list[Message]:
    """`value` as messages with role and content only.

    Raises:
        PromptError: which message is wrong, and how.
    """
    if not value:
        raise PromptError(f"{name}: an empty list; give the row at least one message")
    messages = []
    for place, message in enumerate(value):
        if not isinstance(message, Mapping):
            kind = type(message).__name__
            raise PromptError(f"{name}[{place}]: {kind}; must be a message of role and content")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                kind = type(message.get(key)).__name__
                raise PromptError(f"{name}[{place}].{key}: {kind}; must be text")
        if not message["role"]:
            raise PromptError(f"{name}[{place}].role: empty; must be user, assistant or system")
        messages.append({"role": message["role"], "content": message["content"]})
    if messages[-1]["role"] == "assistant":
        raise PromptError(f"{name}: ends with an assistant turn; leave out the answer to generate")
    if not messages[-1]["content"].strip():
        raise PromptError(
            f"{name}[{len(messages) - 1}].content: blank; give the last turn a content"
        )
    return messages


def check_not_blank(name: str, texts: Sequence[str]) -> None:
    """
    Raises:
        PromptError: all of the prompt's texts are empty or white space.
    """
    if not any(text.strip() for text in texts):
        what = "only white space" if any(texts) else "empty"
        raise PromptError(f"{name}: {what}; give the row a prompt or leave it out")


def _is_unicode(texts: Sequence[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True
