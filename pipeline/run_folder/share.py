"""A share of a run's parts: `share=I/N`.

Launch I of N does the parts I, I + N, I + 2N, ... of the plan. Launches with different I work on
one run folder at the same time and know nothing of each other: a part has one owner, so nothing
needs to be handed out.
"""

import re
from dataclasses import dataclass

from engine.errors import UserError

FORM = re.compile(r"(0|[1-9]\d*)/([1-9]\d*)")
LOCK_NAME = re.compile(r"share-(\d+)-of-(\d+)\.lock")


@dataclass(frozen=True, slots=True, order=True)
class Share:
    num: int
    """Into how many shares the parts are divided."""
    index: int
    """Which of them this is: 0 to num - 1."""

    @classmethod
    def of(cls, text: str | None) -> "Share | None":
        """The share that I/N names; None for None, which stands for all parts.

        Raises:
            UserError: the text is not I/N with 0 <= I < N.
        """
        if text is None:
            return None
        match = FORM.fullmatch(text)
        if match is None:
            raise UserError(f"share={text}: give I/N, such as share=0/4 for the first of 4 shares")
        index, num = int(match[1]), int(match[2])
        if not index < num:
            raise UserError(
                f"share={text}: shares count from 0; give one of share=0/{num} to "
                f"share={num - 1}/{num}"
            )
        return cls(num, index)

    @classmethod
    def of_lock(cls, name: str) -> "Share | None":
        """The share whose lock file has this name; None if it is another file."""
        match = LOCK_NAME.fullmatch(name)
        return None if match is None else cls(int(match[2]), int(match[1]))

    def __str__(self) -> str:
        return f"{self.index}/{self.num}"

    @property
    def lock_name(self) -> str:
        return f"{self.file_name}.lock"

    @property
    def file_name(self) -> str:
        """What the names of this launch's own files begin with."""
        return f"share-{self.index}-of-{self.num}"

    def has(self, part: int) -> bool:
        """Whether the part of this number is one of this share."""
        return part % self.num == self.index
