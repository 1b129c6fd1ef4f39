"""Turns texts and conversations into token ids, and generated token ids back into text.

A checkpoint's tokenizer and chat template are applied here, for the job and for `engine.LLM` alike.
The content of a prompt is always text: where it spells a special token it never becomes that token
(engine/text/special_text.py). Only a template, the checkpoint's or the caller's, can place special
tokens. What a conversation says reaches the prompt, or is an error (engine/text/reach.py).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import UserError
from engine.model.families import FAMILIES
from engine.model.load import read_config
from engine.text.bos import bos_of, check_is_new
from engine.text.messages import (
    Change,
    ChatOptions,
    Tools,
    Turn,
    changed,
    mapped,
    texts_in,
    texts_of,
    tools_of,
    turns_of,
    unchanged,
)
from engine.text.messages import PromptError as PromptError
from engine.text.reach import ReachCheck
from engine.text.special_text import SpecialText
from engine.text.templates import ChatTemplate, TemplateRefusal
from engine.text.tokenizer import check_tokens, load_tokenizer

Render = Callable[[list[str]], str]
"""Puts the contents of a prompt, in their order, into the text that is encoded."""
NO_OPTIONS = ChatOptions()


class Encoded(NamedTuple):
    """A prompt as the model gets it."""

    ids: list[int]
    text: str
    """What was encoded. A BOS that the tokenizer itself puts before raw text is not in it."""


class ChatTokenizer:
    """The tokenizer and chat template of one checkpoint."""

    def __init__(
        self,
        folder: Path,
        chat_template: str | None = None,
        options: ChatOptions = NO_OPTIONS,
    ) -> None:
        """`chat_template` is used only if the checkpoint in `folder` has none of its own.

        Raises:
            UserError: the folder holds no tokenizer that can be read without running its code, or
                a chat template that is broken or not there; or the tokenizer has no BOS to add.
        """
        self.tokenizer = load_tokenizer(folder)
        self.options = options
        self.template = ChatTemplate(self.tokenizer, folder, chat_template, options)
        self._reach = ReachCheck(self.template.render, options)
        self._backend = self.tokenizer.backend_tokenizer
        # tokenizer.json may ask for truncation or padding. A prompt that is too long must be
        # reported, not cut.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._special = SpecialText(self._backend)
        self._bos = bos_of(self.tokenizer, folder, options)
        self._good_roles: set[str] = set()
        """Roles that spell no special token."""

    @classmethod
    def of_checkpoint(cls, folder: Path, options: ChatOptions = NO_OPTIONS) -> "ChatTokenizer":
        """The tokenizer of a checkpoint folder, checked against its config.json, with its family's
        chat template if it has none of its own.

        Raises:
            UserError: no readable tokenizer or config.json, the two contradict each other, or a
                chat template is broken or not there.
        """
        model = read_config(folder)
        chat = cls(folder, FAMILIES[model.family].CHAT_TEMPLATE, options)
        check_tokens(chat.tokenizer, model, folder)
        return chat

    @property
    def has_chat_template(self) -> bool:
        return self.template.exists

    def check_user_turn(self, system: str | None) -> None:
        """Check that the template can render a user turn, after a system turn if `system` is given:
        if it cannot, no text can be a prompt. A refusal in the template's own words is left to the
        prompts, on which it may depend.

        Raises:
            UserError: the template fails, leaves out a turn, or begins with the BOS of `add_bos`.
        """
        self.template.check()
        section = self.options.section
        another = f"take another with {section}chat_template=FILE"
        turns: tuple[tuple[str | None, str, str], ...] = (
            (None, f"{self.template.source}: on a single user turn", f"correct it, or {another}"),
        )
        if system is not None:
            what = f"{section}system={system!r}: with this system turn"
            turns += ((system, what, f"leave it out, or {another}"),)
        for its, what, remedy in turns:
            try:
                self.user_turn("prompt", ["Hello"], "".join, its)
            except PromptError as error:
                refusal = error.__cause__
                if isinstance(refusal, TemplateRefusal):
                    if refusal.is_own and its is None:
                        continue
                    raise UserError(f"{what}, {refusal}; {remedy}") from error
                lost = "the chat template leaves out a content"
                raise UserError(f"{what}, {lost}; {remedy}") from error
            if its is None:
                check_is_new(self._bos, self.template, self.options)

    def raw(self, name: str, contents: Sequence[str], render: Render) -> Encoded:
        """The rendered text without chat template; the tokenizer adds BOS if it normally does, or
        as `add_bos` says.

        Raises:
            PromptError: not valid Unicode. `name` says in the message which prompt it is.
        """

        def rendered(change: Change) -> str:
            return render([change(content) for content in contents])

        is_allowed = self.options.add_bos is not False
        return self._encode(name, contents, rendered, add_special_tokens=is_allowed)

    def user_turn(
        self,
        name: str,
        contents: Sequence[str],
        render: Render,
        system: str | None = None,
        tools: Any = None,
    ) -> Encoded:
        """The rendered text as one user turn, after a system turn if `system` is given.

        Raises:
            PromptError: not valid Unicode, the chat template refuses it or leaves something out, or
                the tools are malformed.
        """
        its_tools = tools_of(self.options.tools, tools)
        before = [] if system is None else [system]
        places = [*(f"{self.options.section}system" for _ in before), name]

        def rendered(change: Change) -> str:
            turns = [{"role": "system", "content": change(text)} for text in before]
            user = {"role": "user", "content": render([change(text) for text in contents])}
            return self._rendered(places, "", [*turns, user], mapped(its_tools, change))

        texts = [*before, *contents, *texts_in(its_tools)]
        return self._encode(name, texts, rendered, add_special_tokens=False)

    def conversation(
        self,
        name: str,
        messages: Any,
        system: str | None = None,
        tools: Any = None,
        opening: str = "",
    ) -> Encoded:
        """A list of messages, each with `role` and `content`, in the forms that
        engine/text/messages.py reads. `system` comes first unless the first message is a system
        turn; `opening` begins the answer.

        Raises:
            PromptError: the messages or tools are malformed, or the chat template is missing,
                refuses them or leaves something out.
        """
        turns, its_tools = turns_of(name, messages), tools_of(self.options.tools, tools)
        places = [f"{name}[{place}]" for place in range(len(turns))]
        if not self.has_chat_template:
            raise PromptError(
                f"{name}: a list of messages, and the model has no chat template; use a text column"
            )
        for place, turn in zip(places, turns, strict=True):
            self._check_role(f"{place}.role", turn["role"])
        if system and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": system}, *turns]
            places = [f"{self.options.section}system", *places]

        def rendered(change: Change) -> str:
            its = [changed(turn, change) for turn in turns]
            data = mapped(its_tools, change)
            return self._rendered(places, ".content", its, data) + change(opening)

        texts = [opening, *texts_in(its_tools), *(its for turn in turns for its in texts_of(turn))]
        return self._encode(name, texts, rendered, add_special_tokens=False)

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of generated token ids: special tokens are left out, spaces are kept."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=True))

    def _check_role(self, name: str, role: str) -> None:
        if role in self._good_roles:
            return
        if self._special.found_in(role):
            raise PromptError(
                f"{name}: {role!r} spells a special token; must be user, assistant or system"
            )
        self._good_roles.add(role)

    def _rendered(
        self, places: list[str], content: str, turns: list[Turn], tools: Tools | None
    ) -> str:
        """The turns in the chat template, with everything that they say (see ReachCheck.check).

        A message that holds only other data has no content. Some templates then want an empty one,
        others null: the first is tried first.
        """
        forms = [turns]
        if any(turn["content"] is None for turn in turns):
            forms = [[{**turn, "content": turn["content"] or ""} for turn in turns], turns]
        faults: list[PromptError] = []
        for form in forms:
            try:
                text = self.template.render(form, tools)
                self._reach.check(places, content, form, tools, text)
                return text
            except PromptError as error:
                faults.append(error)
        raise faults[0]

    def _encode(
        self,
        name: str,
        texts: Sequence[str],
        render: Callable[[Change], str],
        add_special_tokens: bool,
    ) -> Encoded:
        """Encode what `render` makes of `texts`, all those that must stay text."""
        try:
            if any(self._special.found_in(text) for text in texts):
                hidden = render(self._special.hide)
                ids = self._special.encode(hidden, add_special_tokens)
                text = self._special.shown(hidden)
            else:
                text = render(unchanged)
                ids = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except TemplateRefusal as refusal:
            told = f"{name}: {self._special.shown(str(refusal))}; fix the turns"
            raise PromptError(told) from refusal
        except PromptError as error:
            raise PromptError(self._special.shown(str(error))) from error
        except (TypeError, UnicodeError):
            if _is_unicode(texts):
                raise
            raise PromptError(
                f"{name}: holds half a surrogate pair; make it valid Unicode"
            ) from None
        if self._bos is None or ids[:1] == [self._bos.id]:
            return Encoded(ids, text)
        return Encoded([self._bos.id, *ids], self._bos.text + text)


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
