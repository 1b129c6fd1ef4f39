"""Build a dataclass from a plain dict, checking that each field exists and has the right type."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.errors import UserError

T = TypeVar("T")


def defaults_of(cls: Any) -> dict[str, Any]:
    """A dataclass's fields and their defaults as a plain dict.

    A field without a default is '???', Hydra's mark for a missing value. Fields with a
    default_factory are left out.
    """
    return {
        f.name: "???" if f.default is MISSING else _plain(f.default)
        for f in fields(cls)
        if f.default_factory is MISSING
    }


def _plain(value: Any) -> Any:
    """A nested section (a dataclass) as a nested dict."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def from_dict(cls: type[T], raw: Mapping[str, Any], prefix: str) -> T:
    """Make a `cls` from the values in `raw`.

    `prefix` is the path of the section, such as "engine.", which error messages put before a
    field's name.

    Raises:
        UserError: a field does not exist, is missing or has the wrong type, or the dataclass
            refuses a value.
    """
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for name, value in raw.items():
        if name not in known:
            raise UserError(
                f"{prefix}{name}={value!r}: no such field; {prefix.rstrip('.') or 'the job'} has "
                f"{', '.join(known) or 'no fields'}"
            )
    values = {}
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name in raw:
            values[f.name] = _converted(raw[f.name], hints[f.name], f"{prefix}{f.name}")
        elif f.default is MISSING:
            raise UserError(f"{prefix}{f.name} is missing: give it a value")
    return cls(**values)


def _converted(value: Any, hint: Any, name: str) -> Any:
    """Check `value` against the type hint. A number is converted where the hint is float or str; a
    dict becomes a dataclass where the hint is one."""
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_dict(hint, value, f"{name}.")
    if _fits(value, hint):
        return value
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    for wider in (float, str):
        if is_number and wider in options:
            return wider(value)
    raise UserError(f"{name}={value!r}: give {type_in_words(hint)}")


def type_in_words(hint: Any) -> str:
    """What a field with this type hint takes: "a whole number or null"."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    return " or ".join(_name_of(option) for option in (get_args(hint) if is_union else (hint,)))


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(v, get_args(hint)[0]) for v in value)
    if origin is dict:
        of_key, of_value = get_args(hint)
        return isinstance(value, dict) and all(
            _fits(key, of_key) and _fits(its, of_value) for key, its in value.items()
        )
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _name_of(hint: Any) -> str:
    names = {type(None): "null", int: "a whole number", float: "a number", str: "text"}
    if get_origin(hint) is list:
        return "a list"
    if get_origin(hint) is dict:
        return "a mapping, {NAME: VALUE}"
    if is_dataclass(hint):
        return "a section of fields"
    return names.get(hint, "true or false" if hint is bool else hint.__name__)
