r"""What stands on the command line: Hydra's flags, and GROUP=NAME and FIELD=VALUE.

Hydra's grammar gives = ~ ( ) ' # { and letters beyond ASCII a meaning of their own. So the value of
a field that takes text is read twice:

    as Hydra's grammar has it   if it is text there, in quotes or not; null; a list for a field that
                                takes a list; with -m, several values
    otherwise                   as the text that was typed, character by character; in [A, B] for a
                                field that takes a list, each of A and B so

`${...}` stands for another field's value in both, and `\${` for the characters `${`.
"""

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.errors import UserError
from engine.from_dict import type_in_words
from pipeline.config.fields import Field
from pipeline.launch.names import alike, is_section, no_such_field
from pipeline.launch.programs import RUN, SLURM, Program

FLAGS = "--help, --cfg job, -m (several jobs), --config-dir=FOLDER"
SHOWS = ("cfg", "package", "info")
ITEM = re.compile(r"""\s*('(\\.|[^'\\])*'|"(\\.|[^"\\])*")\s*(?=,|$)|[^,]+""")
"""An item of a list: in quotes, or anything up to a comma."""
IS_CALL = re.compile(r"\s*\w+\s*\(")


@dataclass(frozen=True, slots=True)
class CommandLine:
    overrides: list[str]
    """KEY=VALUE, such that Hydra's grammar can read every value."""
    is_sweep: bool
    config_dir: str | None
    flags: list[str]
    """What Hydra itself is to show (--help, --cfg job), instead of running a job."""
    program: Program = RUN

    def typed(self, key: str) -> bool:
        """Whether the command line sets this field or group."""
        return any(override.startswith(f"{key}=") for override in self.overrides)


def read_arguments(argv: Sequence[str], program: Program = RUN) -> CommandLine:
    """
    Raises:
        UserError: a flag, field or group does not exist, or a value cannot be read.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False
    args, others = parser.parse_known_args(list(argv))
    for flag in (other for other in others if other.startswith("-")):
        raise UserError(_no_such_flag(flag, program))
    for flag in ("config_path", "experimental_rerun", "shell_completion"):
        if getattr(args, flag):
            raise UserError(f"--{flag.replace('_', '-')}: not read here; there are {FLAGS}")
    overrides = [*args.overrides, *others]
    if (name := args.config_name) is not None:
        if any(its.startswith("conf=") for its in overrides):
            raise UserError(f"--config-name={name}: means conf={name}; give one of them")
        overrides.append(f"conf={name.removesuffix('.yaml')}")
    flags = [f"--{name}" for name in ("help", "hydra-help", "resolve") if _given(args, name)]
    flags += [f"--{name}={_given(args, name)}" for name in SHOWS if _given(args, name)]
    is_sweep = args.multirun
    if is_sweep and flags:
        raise UserError(f"-m with {' '.join(flags)}: these show one job; leave out one of them")
    readable = [_readable(its, program, is_sweep) for its in overrides]
    return CommandLine(readable, is_sweep, args.config_dir, flags, program)


def as_literal(text: str) -> str:
    """The text as Hydra's grammar quotes it."""
    return QuotedString(text, Quote.single).with_quotes()


def _given(args: Namespace, flag: str) -> Any:
    return getattr(args, flag.replace("-", "_"))


def _no_such_flag(flag: str, program: Program) -> str:
    name, _, value = flag.partition("=")
    names = alike(name, program)
    meant = f"write {names[0]}={value or 'VALUE'}" if names else f"there are {FLAGS}"
    return f"{flag}: no such flag. Fields are given as FIELD=VALUE, without dashes; {meant}"


def _readable(override: str, program: Program, is_sweep: bool) -> str:
    """The override such that Hydra reads what was meant.

    Raises:
        UserError: it names no field or group, or has no value that can be read.
    """
    key, equals, value = override.partition("=")
    if key.startswith("~"):
        raise UserError(
            f"{override}: a field cannot be removed; write {key[1:]}=null, or its value"
        )
    key = key.lstrip("+")
    if not equals:
        likely = f"conf={override}" if re.fullmatch(r"\w+", override) else "FIELD=VALUE"
        raise UserError(f"{override}: give FIELD=VALUE or GROUP=NAME, perhaps {likely}")
    if key.startswith(("hydra.", "hydra/")):
        raise UserError(f"{override}: Hydra composes the job but does not run it; leave this out")
    field = program.fields.get(key)
    if key.partition(".")[0] == SLURM and not program.takes_slurm:
        raise UserError(
            f"{override}: says where Slurm runs a job, for python -m jobs.submit, which takes all "
            f"that {program.name} takes; leave it out here"
        )
    is_option = key in (*program.groups, "conf")
    if field is None and not is_option and not is_section(key, program):
        raise UserError(no_such_field(key, value, program))
    if field is not None and (field.takes_text or field.takes_list):
        value = _as_text(field, value, is_sweep)
    else:
        _check_readable(key, value, field, is_option, is_sweep)
    return f"{key}={value}"


def _as_text(field: Field, value: str, is_sweep: bool) -> str:
    """The value of a field that takes text (or a list of texts), as Hydra reads it.

    Raises:
        UserError: it looks like several values, but cannot be read as such.
    """
    _check_interpolation(field.name, value)
    parsed = _parsed(field.name, value)
    is_list = field.takes_list and value.startswith("[") and value.endswith("]")
    is_several = parsed is not None and parsed.is_sweep_override()
    if is_list:
        read: Any = parsed.value() if parsed else None
        is_texts = isinstance(read, list) and all(isinstance(item, str) for item in read)
        return value if is_texts else _list_of_literals(value)
    if is_sweep and parsed is None and "," in value:
        raise UserError(
            f"{field.name}={value}: with -m a comma separates values, and these cannot be read; "
            "put each of them in quotes"
        )
    if field.takes_list and is_several and not is_sweep and not Path(value).exists():
        raise UserError(
            f"{field.name}={value}: several values are a list, {field.name}=[{value}]; a comma "
            f"that is part of a name stands in quotes, \"{field.name}='{value}'\""
        )
    if is_sweep and is_several:
        return value
    is_text = parsed is not None and not is_several and isinstance(parsed.value(), str | NoneType)
    return value if is_text and not IS_CALL.match(value) else as_literal(value)


def _list_of_literals(value: str) -> str:
    """[A, B] with each item in quotes, unless it has some already."""
    items = (item.group().strip() for item in ITEM.finditer(value[1:-1]))
    return f"[{','.join(item if _is_quoted(item) else as_literal(item) for item in items)}]"


def _check_readable(
    key: str, value: str, field: Field | None, is_option: bool, is_sweep: bool
) -> None:
    """Check the value of a group, or of a field that takes no text.

    Raises:
        UserError: it cannot be read, or is several values without -m.
    """
    parsed = _parsed(key, value)
    kind = type_in_words(field.hint) if field else "the name of an option"
    if parsed is None or not (
        parsed.is_sweep_override() or isinstance(parsed.value(), str) or not is_option
    ):
        raise UserError(f"{key}={value}: give {kind}")
    if parsed.is_sweep_override() and not is_sweep:
        raise UserError(
            f"{key}={value}: give {kind}; several values need -m, which runs one job after another"
        )


def _parsed(key: str, value: str) -> Override | None:
    """Hydra's reading of the override, or None if its grammar has none."""
    try:
        return OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        return None


def _check_interpolation(name: str, value: str) -> None:
    """
    Raises:
        UserError: a `${` begins nothing that stands for another field.
    """
    try:
        OmegaConf.create({"value": value})
    except OmegaConfBaseException:
        raise UserError(
            f"{name}={value}: ${{FIELD}} stands for another field's value, and this one cannot be "
            r"read; for the characters themselves write \${"
        ) from None


def _is_quoted(item: str) -> bool:
    return len(item) > 1 and item[0] == item[-1] and item[0] in "'\""
