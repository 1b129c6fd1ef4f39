"""What a prompt format is: how a benchmark's own tools write a row's prompt."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Row = Mapping[str, Any]
Turn = dict[str, str]
"""{role, content}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    columns: tuple[tuple[str, ...], ...]
    """What is read of the row: of each group of names, the first that there is."""
    text: Callable[[Row], str]
    """Row -> the user turn to answer, or the text to continue."""
    opening: Callable[[Row], str] | None = None
    """Row -> how the answer begins, which the model continues."""
    turns: Callable[[], Sequence[Turn]] | None = None
    """The turns before it: examples, as a conversation."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, unless generation.stop names others."""

    def columns_in(self, available: Collection[str]) -> list[str]:
        """The columns that are read, of those available; of a group without any, its first name."""
        return [
            next((name for name in group if name in available), group[0]) for group in self.columns
        ]


@cache
def examples(name: str) -> list[dict[str, Any]]:
    """The examples of this name in examples.yaml."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(
        Path(__file__).with_name("examples.yaml").read_text()
    )
    return found[name]
