"""Does everything that a conversation says reach the prompt?

A chat template may leave out what it was not written for: a system turn, a role, tool calls, the
tools. Two checks find that:

- Every text of the row (contents, and the data of further keys) is looked for in the rendered
  prompt. This is done for each row.
- A text that is left out may be in the prompt by chance, being part of another. So each shape of
  conversation (its roles, keys and lengths of lists) is also rendered with standard texts in place
  of the row's, all contents different, and once without each key. This is done once for each shape:
  a data set has few. What it finds depends on the shape alone, not on the row that came first.

Templates may trim white space at both ends, and may show texts as JSON does.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from engine.text.messages import ChatOptions, PromptError, Tools, Turn

Render = Callable[[list[Turn], Tools | None], str]

BOOKKEEPING = ("id", "type", "index")
"""Keys within tool calls and tools that say nothing of their own: `type` is `function`, and what an
`id` links is said by the `tool_call_id` of a message, which must reach the prompt."""
NAMES_IN = ("arguments", "properties")
"""Objects whose keys are names that the row gives."""
KNOWN_ROLES = ("user", "assistant")
MAX_SHAPES = 10_000


class ReachCheck:
    """Checks the conversations that one chat template renders."""

    def __init__(self, render: Render, options: ChatOptions) -> None:
        self._render = render
        self._options = options
        self._remedy = f"take another chat template ({options.section}chat_template)"
        self._faults: dict[Any, str | None] = {}
        """By shape: what is left out of such conversations, or None."""

    def check(
        self,
        places: list[str],
        content: str,
        turns: list[Turn],
        tools: Tools | None,
        rendered: str,
    ) -> None:
        """Check one conversation and the prompt that it became. `places` is what messages call each
        of its turns, and `content` what they add for its content.

        Raises:
            PromptError: what does not reach the prompt.
        """
        # The shape first: it names the whole key or turn, for which there is a remedy.
        shape = _shape(turns, tools)
        if shape not in self._faults:
            if len(self._faults) >= MAX_SHAPES:
                self._faults.clear()
            standard = [_standard_turn(turn, place) for place, turn in enumerate(turns)]
            self._faults[shape] = self._fault(standard, None if tools is None else _standard(tools))
        if (fault := self._faults[shape]) is not None:
            raise PromptError(fault.format(places=places, content=content))
        for place, turn in zip(places, turns, strict=True):
            text = turn["content"]
            if text and not _is_in(text, rendered):
                raise self._lost(f"{place}{content}", text)
            if len(turn) > 2:
                for key in self._data_of(turn):
                    self._check_data(f"{place}.{key}", key, turn[key], rendered)
        if tools is not None:
            self._check_data(self._options.tools, "tools", tools, rendered)

    def _data_of(self, turn: Turn) -> list[str]:
        left_out = ("role", "content", *self._options.optional_keys)
        return [key for key in turn if key not in left_out]

    def _check_data(self, name: str, key: str, value: Any, rendered: str) -> None:
        for path, optional, text in self._said(name, key, value, key):
            if not _is_in(text, rendered):
                raise self._lost(path, text, optional)

    def _said(
        self, path: str, key: str, value: Any, optional: str
    ) -> Iterator[tuple[str, str, str]]:
        """The place and the text of each value in the data of a key, and between them the key that
        would allow the template to leave it out."""
        if isinstance(value, list):
            for place, its in enumerate(value):
                yield from self._said(f"{path}[{place}]", key, its, optional)
        elif isinstance(value, dict):
            for inner, its in value.items():
                if key in NAMES_IN:
                    yield f"{path}.{inner}", optional, inner
                elif inner in (*BOOKKEEPING, *self._options.optional_keys):
                    continue
                which = optional if key in NAMES_IN else inner
                yield from self._said(f"{path}.{inner}", inner, its, which)
        elif value is not None and not isinstance(value, bool):
            yield path, optional, value if isinstance(value, str) else json.dumps(value)

    def _fault(self, turns: list[Turn], tools: Tools | None) -> str | None:
        """What the template leaves out of a conversation of standard texts, as a message in which
        `check` names the turns; None: nothing."""
        rendered = self._try(turns, tools)
        if rendered is None:  # it refuses these texts, so the row's own are the only test
            return None
        for place, turn in enumerate(turns):
            role = _escaped(turn["role"])
            if (turn["content"] or "") not in rendered:
                known = "" if turn["role"] in KNOWN_ROLES else "give it a role that it knows, "
                return (
                    f"{{places[{place}]}}{{content}}: not in the prompt, because the chat template "
                    f"leaves out this turn of the role {role!r}; {known}remove it, or "
                    f"{self._remedy}"
                )
            for key in self._data_of(turn):
                without = {its: value for its, value in turn.items() if its != key}
                if self._is_ignored(turns, tools, place, without, rendered):
                    return (
                        f"{{places[{place}]}}.{_escaped(key)}: not in the prompt, because the "
                        f"chat template ignores it; {self._allow(key)}, or {self._remedy}"
                    )
            if turn["role"] not in KNOWN_ROLES and self._is_unknown(turns, tools, place, rendered):
                return (
                    f"{{places[{place}]}}.role: {_escaped(repr(turn['role']))}, which the chat "
                    f"template does not know; give the turn a role that it knows, or {self._remedy}"
                )
        if tools is not None and self._try(turns, None) == rendered:
            return (
                f"{_escaped(self._options.tools)}: not in the prompt, because the chat template "
                f"ignores tools; {self._options.without_tools}, or {self._remedy}"
            )
        return None

    def _is_ignored(
        self, turns: list[Turn], tools: Tools | None, place: int, other: Turn, rendered: str
    ) -> bool:
        """Whether the prompt is the same with another turn at this place."""
        return self._try([*turns[:place], other, *turns[place + 1 :]], tools) == rendered

    def _is_unknown(
        self, turns: list[Turn], tools: Tools | None, place: int, rendered: str
    ) -> bool:
        """Whether a turn's role is rendered as any word would be, by a template that tells a user
        from an assistant."""
        users, assistants, others = (
            {**turns[place], "role": role} for role in (*KNOWN_ROLES, "nobody")
        )
        if not self._is_ignored(turns, tools, place, others, rendered):
            return False
        as_user = self._try([*turns[:place], users, *turns[place + 1 :]], tools)
        return not self._is_ignored(turns, tools, place, assistants, as_user or "")

    def _try(self, turns: list[Turn], tools: Tools | None) -> str | None:
        try:
            return self._render(turns, tools)
        except PromptError:
            return None

    def _allow(self, key: str) -> str:
        return (
            "remove it from the row, allow that with "
            f"{self._options.section}optional_keys=[{_escaped(key)}]"
        )

    def _lost(self, path: str, text: str, key: str | None = None) -> PromptError:
        shown = repr(text if len(text) <= 60 else f"{text[:60]}...")
        how, remedy = "leaves it out", "" if key is None else f"{self._allow(key)}, or "
        if key is None:
            how, remedy = "leaves out or changes a part of it", "change the row, or "
        return PromptError(
            f"{path}: {shown} is not in the prompt, because the chat template {how}; "
            f"{remedy}{self._remedy}"
        )


def _shape(turns: list[Turn], tools: Tools | None) -> Any:
    """What the standard texts of a conversation depend on."""
    if tools is None and all(_is_plain(turn) for turn in turns):
        return tuple([turn["role"] for turn in turns])
    standard = [_standard_turn(turn, place) for place, turn in enumerate(turns)]
    return json.dumps([standard, _standard(tools)])


def _is_plain(turn: Turn) -> bool:
    content = turn["content"]
    return len(turn) == 2 and bool(content) and not content.isspace()


def _standard_turn(turn: Turn, place: int) -> Turn:
    """The turn with standard texts. They are digits: no template changes their case."""
    content = turn["content"]
    if content is not None:
        content = f"41592653589{place:06}" if content.strip() else ""
    standard = {key: _standard(its, key) for key, its in turn.items()} if len(turn) > 2 else {}
    return {**standard, "role": turn["role"], "content": content}


def _standard(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return value if key == "type" else "41592653588"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 41592653587
    if isinstance(value, list):
        return [_standard(its, key) for its in value]
    if isinstance(value, dict):
        return {inner: _standard(its, inner) for inner, its in value.items()}
    return value


def _escaped(text: str) -> str:
    """For a message in which the turns are still to be named."""
    return text.replace("{", "{{").replace("}", "}}")


def _is_in(text: str, rendered: str) -> bool:
    """Whether a prompt shows the text: as it is, trimmed, or as it is written in JSON or Python."""
    if text in rendered or (text := text.strip()) in rendered:
        return True
    quoted = (json.dumps(text, ensure_ascii=False), json.dumps(text), repr(text))
    return any(its[1:-1] in rendered for its in quoted)
