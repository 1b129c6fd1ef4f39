"""Which chat template does a checkpoint have, and is it one?

A checkpoint may have one (chat_template.jinja, or chat_template in tokenizer_config.json), or
several with names (a list in tokenizer_config.json, or additional_chat_templates/NAME.jinja). Of
several, `default` is taken, and `tool_use`, if there is one, for conversations with tools.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from engine.errors import UserError
from engine.text.messages import ChatOptions, PromptError, Tools, Turn

DEFAULT, FOR_TOOLS = "default", "tool_use"
OF_TRANSFORMERS = {"tojson"}
"""Filters that transformers adds to those of Jinja."""
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""A tag that transformers adds; it does not change what is rendered."""


@dataclass(frozen=True, slots=True)
class Template:
    text: str
    source: str
    """The file that it stands in, and what it is called there."""


class ChatTemplate:
    """The chat template of one checkpoint, checked; or none."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        folder: Path,
        of_family: str | None,
        options: ChatOptions,
    ) -> None:
        """`of_family` is used only if the checkpoint in `folder` has none of its own.

        Raises:
            UserError: the template that was asked for is not there, or no valid Jinja.
        """
        self._options = options
        self._special_tokens: dict[str, Any] = dict(tokenizer.special_tokens_map)
        """Their names (bos_token) and texts, which templates know."""
        self._plain: Template | None = None
        self._for_tools: Template | None = None
        self._fault: UserError | None = None
        try:
            self._take(_templates_in(tokenizer.chat_template, folder), folder, of_family)
        except UserError as fault:
            if options.chat_template is not None:
                raise
            self._fault = fault

    def check(self) -> None:
        """
        Raises:
            UserError: the checkpoint's template is no valid Jinja, or none of several is the
                default one. Raw text needs no template, so this is left to those who use it.
        """
        if self._fault is not None:
            raise self._fault

    def _take(self, named: dict[str, Template], folder: Path, of_family: str | None) -> None:
        options = self._options
        if not named and of_family:
            named = {DEFAULT: Template(of_family, "the chat template of the model's family")}
        chosen = options.chat_template
        if chosen is not None:
            self._plain = self._called(chosen, named, folder)
        else:
            self._plain, self._for_tools = named.get(DEFAULT), named.get(FOR_TOOLS)
        if self._plain is None and named:
            raise UserError(
                f"{folder}: has the chat templates {', '.join(named)}, and none of them is called "
                f"{DEFAULT}; choose one with {options.section}chat_template=NAME"
            )
        for template in (self._plain, self._for_tools):
            if template is not None:
                _check(template, options)

    @property
    def exists(self) -> bool:
        return self._plain is not None or self._fault is not None

    @property
    def source(self) -> str:
        """Where the template for conversations without tools stands."""
        assert self._plain is not None, "asked only if there is a template"
        return self._plain.source

    @property
    def text(self) -> str:
        """The template itself, for conversations without tools."""
        assert self._plain is not None, "asked only if there is a template"
        return self._plain.text

    def render(self, turns: list[Turn], tools: Tools | None, continues: bool = False) -> str:
        """The text of a conversation, up to where the model's answer begins; if it `continues`, up
        to where the last message ends, which the answer goes on with.

        Raises:
            PromptError: the template refuses the conversation, or fails on it.
        """
        if self._fault is not None:
            raise PromptError(str(self._fault))
        template = (self._for_tools if tools is not None else None) or self._plain
        assert template is not None, "rendered only if there is a template"
        try:
            rendered = render_jinja_template(
                [turns],
                tools=tools,  # type: ignore[arg-type]
                chat_template=template.text,
                add_generation_prompt=not continues,
                continue_final_message=continues,
                **self._special_tokens,
            )
            return str(rendered[0][0])
        except Exception as error:  # a template is code, and may raise anything
            if type(error) is TemplateError:
                raise TemplateRefusal(f"the chat template refuses it: {error}", True) from error
            what = f"{type(error).__name__}: {error}"
            raise TemplateRefusal(f"the chat template fails on it: {what}") from error

    def _called(self, chosen: str, named: Mapping[str, Template], folder: Path) -> Template:
        if chosen in named:
            return named[chosen]
        field = f"{self._options.section}chat_template={chosen!r}"
        file = Path(chosen).expanduser()
        if file.is_file():
            try:
                return Template(file.read_text(encoding="utf-8"), str(file))
            except (OSError, UnicodeError) as error:
                raise UserError(f"{field}: cannot be read ({error}); give a text file") from error
        has = f"the templates {', '.join(named)}" if named else "no template of its own"
        raise UserError(
            f"{field}: no such file, and {folder} has {has}; give one of its names, or the path of "
            "a file with a Jinja template"
        )


class TemplateRefusal(PromptError):
    """A template does not render a conversation."""

    def __init__(self, reason: str, is_own: bool = False) -> None:
        """`is_own`: the template itself says why (raise_exception); else it fails."""
        super().__init__(reason)
        self.is_own = is_own


def has_own_template(folder: Path) -> bool:
    """Whether the checkpoint in `folder` comes with a chat template of its own."""
    file = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file():
        return True
    if any((folder / "additional_chat_templates").glob("*.jinja")):
        return True
    return file.is_file() and bool(json.loads(file.read_text()).get("chat_template"))


def _templates_in(own: Any, folder: Path) -> dict[str, Template]:
    """The checkpoint's templates by name; one without a name is the default.

    Raises:
        UserError: what the checkpoint gives as templates is not text.
    """
    named = own if isinstance(own, Mapping) else {DEFAULT: own} if own else {}
    found = {}
    for name, text in named.items():
        source = _source(folder, name, isinstance(own, Mapping))
        if not isinstance(text, str):
            raise UserError(f"{source}: {type(text).__name__}; a chat template must be text")
        found[str(name)] = Template(text, source)
    return found


def _source(folder: Path, name: str, is_named: bool) -> str:
    file = folder / "additional_chat_templates" / f"{name}.jinja"
    if name == DEFAULT:
        file = folder / "chat_template.jinja"
    if file.is_file():
        return str(file)
    which = f" {name!r}" if is_named else ""
    return f"{folder / 'tokenizer_config.json'}, chat_template{which}"


def _check(template: Template, options: ChatOptions) -> None:
    """
    Raises:
        UserError: it is no valid Jinja, or uses a filter or test that does not exist.
    """
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    remedy = f"correct it, or take another with {options.section}chat_template=FILE"
    try:
        tree = env.parse(_GENERATION.sub("", template.text))
    except TemplateSyntaxError as error:
        raise UserError(
            f"{template.source}: the chat template is broken in line {error.lineno}: "
            f"{error.message}; {remedy}"
        ) from error
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        kind, known = (
            ("filter", {*env.filters, *OF_TRANSFORMERS})
            if isinstance(node, nodes.Filter)
            else ("test", {*env.tests})
        )
        if node.name not in known:
            raise UserError(
                f"{template.source}: the chat template is broken in line {node.lineno}: there is "
                f"no {kind} {node.name!r}; {remedy}"
            )
