"""Reads what a row or a caller gives as messages and tools, and says what is wrong with it.

Messages come in the forms that data sets have: lists of {role, content}, content as text or as
parts ({type: text, text: ...}), further keys (tool_calls, name, ...), each of these also as JSON
text. They leave as turns: content is text (or null beside other data), and no key is null or empty,
because columns of structs give every message the keys of all.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Turn = dict[str, Any]
"""`role`, `content` (text, or None if the message holds only other data), and keys with data."""
Tools = list[dict[str, Any]]
"""The functions that a model may call, as the template's `tools`."""

Change = Callable[[str], str]
"""What is done to a text of the prompt before it is put into the template."""
KEYS = ("role", "content")
TEXT_TYPES = ("text", None)
"""Values of a part's `type` that mean text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """How conversations go through a chat template, and what messages call these settings."""

    chat_template: str | None = None
    """The name of one of the checkpoint's templates, or a file; None: the default one."""
    optional_keys: tuple[str, ...] = ()
    """Keys of messages and tools that the template may leave out."""
    add_bos: bool | None = None
    """True: every prompt begins with the tokenizer's BOS. False: no raw text does. None: raw text
    does if the tokenizer itself puts it there."""
    section: str = ""
    """What messages put before a setting's name, such as "prompt."."""
    tools: str = "tools"
    """What messages call the tools."""
    without_tools: str = "leave the tools out"
    """The remedy for tools that a template does not know."""


class PromptError(Exception):
    """What is wrong with one prompt, and what to do: other prompts are not affected."""


def turns_of(name: str, value: Any) -> list[Turn]:
    """`value` as turns.

    Raises:
        PromptError: which message is wrong, and how; `name` says in the message which value it is.
    """
    messages = _listed(name, value, "a list of messages")
    if not messages:
        raise PromptError(f"{name}: an empty list; give the row at least one message")
    turns = [_turn(f"{name}[{place}]", message) for place, message in enumerate(messages)]
    last = turns[-1]
    if last["role"] == "assistant":
        raise PromptError(f"{name}: ends with an assistant turn; leave out the answer to generate")
    if not (last["content"] or "").strip() and len(last) == 2:
        raise PromptError(f"{name}[{len(turns) - 1}].content: blank; give the last turn a content")
    return turns


def tools_of(name: str, value: Any) -> Tools | None:
    """`value` as tools; None if it is null or empty.

    Raises:
        PromptError: which tool is wrong, and how.
    """
    if _is_nothing(value):
        return None
    tools = []
    for place, tool in enumerate(_listed(name, value, "a list of tools")):
        its = _from_json(f"{name}[{place}]", tool, "a tool") if isinstance(tool, str) else tool
        if not isinstance(its, Mapping):
            raise PromptError(
                f"{name}[{place}]: {_kind(its)}; must be a tool: an object with its name, "
                "description and parameters"
            )
        tools.append(_plain(f"{name}[{place}]", its))
    return tools or None


def is_messages_text(text: str) -> bool:
    """Whether a text is the JSON of a list of messages."""
    if not text.lstrip().startswith("[") or '"role"' not in text:
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(value) and all(isinstance(its, dict) and "role" in its for its in value)


def mapped(value: Any, change: Change) -> Any:
    """`value` with `change` applied to all texts in it, at any depth, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [mapped(its, change) for its in value]
    if isinstance(value, dict):
        return {change(key): mapped(its, change) for key, its in value.items()}
    return value


def texts_in(value: Any) -> list[str]:
    """All texts in `value`, at any depth, keys included."""
    found: list[str] = []
    mapped(value, lambda text: found.append(text) or text)  # type: ignore[func-returns-value]
    return found


def texts_of(turn: Turn) -> list[str]:
    """All texts of a turn but its role and the names of its keys."""
    texts = [turn["content"]] if turn["content"] else []
    if len(turn) > 2:
        texts += texts_in({key: its for key, its in turn.items() if key not in KEYS})
    return texts


def changed(turn: Turn, change: Change) -> Turn:
    """The turn with all texts of `texts_of` changed."""
    if change is unchanged:
        return turn
    return {
        key if key in KEYS else change(key): its if key == "role" else mapped(its, change)
        for key, its in turn.items()
    }


def unchanged(text: str) -> str:
    return text


def _turn(name: str, message: Any) -> Turn:
    if isinstance(message, str):
        message = _from_json(name, message, "a message")
    if not isinstance(message, Mapping):
        raise PromptError(f"{name}: {_kind(message)}; must be a message of role and content")
    role, content = message.get("role"), message.get("content")
    if "role" not in message:
        raise PromptError(
            f"{name}: has no role, but {', '.join(map(str, message)) or 'nothing'}; must be a "
            "message of role and content"
        )
    if not isinstance(role, str):
        raise PromptError(f"{name}.role: {_kind(role)}; must be text")
    if not role:
        raise PromptError(f"{name}.role: empty; must be user, assistant or system")
    turn: Turn = {"role": role, "content": content}
    if len(message) > 2 or "content" not in message:
        turn |= {
            key: _data(f"{name}.{key}", key, its)
            for key, its in message.items()
            if key not in ("role", "content") and not _is_nothing(its)
        }
    if not isinstance(content, str):
        turn["content"] = content = _joined(f"{name}.content", content)
    if content is None and len(turn) == 2:
        raise PromptError(f"{name}.content: {_kind(message.get('content'))}; must be text")
    return turn


def _joined(name: str, content: Any) -> str | None:
    """Content that is no text: the texts of its parts, one after the other; None if there is none.

    Raises:
        PromptError: a part is no text, or something else than parts.
    """
    if content is None or content == []:
        return None
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list | tuple):
        raise PromptError(f"{name}: {_kind(content)}; must be text")
    return "".join(_text_of_part(f"{name}[{place}]", part) for place, part in enumerate(parts))


def _text_of_part(name: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise PromptError(f"{name}: {_kind(part)}; must be a part, {{type: text, text: ...}}")
    its_type, text = part.get("type"), part.get("text")
    rest = [key for key, its in part.items() if key not in ("type", "text") if not _is_nothing(its)]
    if its_type not in TEXT_TYPES:
        raise PromptError(
            f"{name}.type: {its_type!r}; the model reads only text, so leave the row out or "
            "describe this part in text"
        )
    if not isinstance(text, str):
        raise PromptError(f"{name}.text: {_kind(text)}; must be text")
    if rest:
        raise PromptError(f"{name}: {', '.join(rest)} beside the text; the model reads only text")
    return text


def _data(name: str, key: str, value: Any) -> Any:
    if key == "tool_calls" and isinstance(value, str):
        value = _from_json(name, value, "a list of tool calls")
    return _plain(name, value)


def _plain(name: str, value: Any) -> Any:
    """`value` as a template may see it: only what JSON has, and without the keys that are null.

    Raises:
        PromptError: something that JSON does not have.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {
            str(key): _plain(f"{name}.{key}", its) for key, its in value.items() if its is not None
        }
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{place}]", its) for place, its in enumerate(value)]
    raise PromptError(
        f"{name}: {_kind(value)}; must be text, a number, true, false or made of them"
    )


def _listed(name: str, value: Any, what: str) -> list[Any]:
    if isinstance(value, str):
        value = _from_json(name, value, what)
    if not isinstance(value, list | tuple) and value is not None:
        raise PromptError(f"{name}: {_kind(value)}; must be {what}, or the JSON of one")
    return list(value or [])


def _from_json(name: str, text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PromptError(
            f"{name}: text that is not the JSON of {what} ({error}): {text[:60]!r}; correct it, or "
            "name another column"
        ) from None


def _is_nothing(value: Any) -> bool:
    """Whether a key says nothing: null, or empty; 0 and false say something."""
    return value is None or (not value and isinstance(value, str | list | tuple | Mapping))


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
