"""Which field does a name mean that is no field? Other projects' names, and misspellings."""

from difflib import get_close_matches

from engine.from_dict import defaults_of
from pipeline.config.fields import GROUPS, Field, sections, slurm_fields
from pipeline.config.job import COMPONENTS, SECTIONS, JobConfig
from pipeline.launch.foreign import ELSEWHERE, FOREIGN, SLURM_FOREIGN
from pipeline.launch.programs import RUN, SLURM, Program


def no_such_field(key: str, value: str | None, program: Program = RUN) -> str:
    """The message for `key=value` where `key` is no field: what was probably meant, and the fields
    that there are."""
    shown = key if value is None else f"{key}={value}"
    options = (*program.groups, "conf")
    likely = alike(key, program)
    meant = [f"{name}={'NAME' if name in options else value}" for name in likely]
    last = _plain(key).rpartition(".")[2]
    told = next((told for told, names in ELSEWHERE.items() if last in names.split()), None)
    if told is not None and not any(name.startswith(SLURM) for name in likely):
        return f"{shown}: no such field; {told}"
    did_you = f"did you mean {' or '.join(meant)}? " if meant else ""
    return f"{shown}: no such field; {did_you}{fields_of(key.rpartition('.')[0], program)}"


def alike(key: str, program: Program = RUN) -> list[str]:
    """The fields and groups that `key` may stand for, the likeliest first; at most three."""
    plain = _plain(key)
    last = plain.rpartition(".")[2]
    names = [*(name for name in program.fields if name != "name"), *program.groups, "conf"]
    named = [name for name in names if name.rpartition(".")[2] == last]
    if named:
        return sorted(named, key=lambda name: name.startswith("columns."))[:1]
    for table in (SLURM_FOREIGN, FOREIGN) if program.takes_slurm else (FOREIGN,):
        if foreign := [name for name, others in table.items() if last in others.split()]:
            return foreign
    by_last: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name.startswith("columns.")):
        by_last.setdefault(name.rpartition(".")[2], name)
    close = get_close_matches(plain, names, n=1, cutoff=0.8)
    close += [by_last[name] for name in get_close_matches(last, by_last, n=2, cutoff=0.75)]
    return list(dict.fromkeys(close))


def fields_of(section: str, program: Program = RUN) -> str:
    """The fields of a section, such as `data` or `engine.soft`; '' is the root config."""
    every = sections() | {SLURM: list(slurm_fields().values())}
    found = [name for place, its in every.items() for name in _below(section, place, its)]
    if section in COMPONENTS:
        choices = (
            f"with {section}={name} {', '.join(defaults_of(cls)) or 'no field'}"
            for name, cls in COMPONENTS[section].items()
        )
        return f"{section} has {'; '.join(choices)}"
    if section and found:
        return f"{section} has {', '.join(dict.fromkeys(found))}"
    scalars = [name for name in defaults_of(JobConfig) if name not in (*GROUPS, "name")]
    groups = ", ".join(("conf", *program.groups))
    return f"there are the groups {groups} and the fields {', '.join(scalars)}"


def is_section(key: str, program: Program = RUN) -> bool:
    """Whether `key` is a section whose fields can be given together: `engine.soft={...}`."""
    return key in SECTIONS or any(name.startswith(f"{key}.") for name in program.fields)


def _below(section: str, place: str, its: list[Field]) -> list[str]:
    if place != section.partition(".")[0]:
        return []
    prefix = f"{section}."
    return [
        field.name.removeprefix(prefix).partition(".")[0]
        for field in its
        if field.name.startswith(prefix)
    ]


def _plain(key: str) -> str:
    return key.lstrip("-+~").replace("-", "_").lower()
