"""Writes the reference of all fields in docs/config.md: `python -m tests.docs.write_config`.

The page above the heading "All fields" is written by hand.
"""

from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

import yaml

from engine.from_dict import type_in_words
from pipeline.config.fields import Field, meaning_of, sections, slurm_fields
from pipeline.config.job import COMPONENTS, SECTIONS
from pipeline.config.slurm import SlurmConfig

FILE = Path(__file__).parents[2] / "docs" / "config.md"
HEADING = "## All fields\n"
NOTE = (
    "Written by `python -m tests.docs.write_config` from the dataclasses; a test holds them "
    "together. A model (`model=NAME`), `engine=gpu` and a ready job (`conf=NAME`) bring values of "
    "their own in place of some defaults; `--cfg job` shows what a command line gives."
)


def reference() -> str:
    lines = [line for name in sections() for line in _section(name)]
    return "\n".join([HEADING, NOTE, *lines, *_slurm()])


def page() -> str:
    """docs/config.md as it should be."""
    return FILE.read_text().split(HEADING)[0] + reference() + "\n"


def _section(name: str) -> Iterator[str]:
    fields = sections()[name]
    component, _, option = name.partition("=")
    cls = COMPONENTS[component][option] if option else SECTIONS.get(name)
    yield from ("", f"### {f'`{name}`' if name else 'The job'}", "")
    if cls is not None:
        yield from (_escaped(meaning_of(cls)), "")
    if not fields:
        yield "It has no fields."
        return
    yield from _table(fields)


def _slurm() -> Iterator[str]:
    yield from ("", "### `slurm`", "", f"{meaning_of(SlurmConfig)} Only jobs.submit has these.", "")
    yield from _table(list(slurm_fields().values()))


def _table(fields: list[Field]) -> Iterator[str]:
    yield from ("| field | takes | default | |", "|---|---|---|---|")
    yield from (_row(field) for field in fields if field.name != "name")


def _row(field: Field) -> str:
    cells = [f"`{field.name}`", type_in_words(field.hint), _default(field), field.meaning]
    return f"| {' | '.join(map(_escaped, cells))} |"


def _default(field: Field) -> str:
    if field.default is MISSING:
        return "`runs/NAME` with conf=NAME" if field.name == "output" else "none"
    return f"`{yaml.safe_dump(field.default).splitlines()[0]}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(page())
