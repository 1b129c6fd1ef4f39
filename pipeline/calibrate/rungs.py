"""On how many rows is each setting tried?

A setting's run has up to 16 parts of the first rows. Its first rung is every sixteenth part, the
next every fourth, the last all of them, so that a rung contains the one before and no row is made
twice. Each rung is a share of the run (`share=0/16`), the last is the run itself.
"""

from dataclasses import dataclass
from math import ceil

from pipeline.run_folder.share import Share

NUM_PARTS = 16
LEAST_ROWS = 8
"""A rung of fewer rows tells nothing."""


@dataclass(frozen=True, slots=True)
class Rung:
    num_shares: int
    """Every so many-th part."""
    num_rows: int
    """At most, of one setting, with those of the rungs before."""

    @property
    def share(self) -> str | None:
        return None if self.num_shares == 1 else f"0/{self.num_shares}"

    def has(self, part: int) -> bool:
        return Share(self.num_shares, 0).has(part)


def part_rows(num_rows: int) -> int:
    """Rows per part of a run of `num_rows` rows."""
    return ceil(num_rows / NUM_PARTS)


def rungs_of(num_rows: int, is_full: bool = False) -> list[Rung]:
    """The rungs, the last with all rows; `is_full`: only that."""
    per_part = part_rows(num_rows)
    num_parts = ceil(num_rows / per_part)
    rungs = [
        Rung(num, min(num_rows, ceil(num_parts / num) * per_part))
        for num in ((1,) if is_full else (NUM_PARTS, NUM_PARTS // 4, 1))
    ]
    return [its for its in rungs if its.num_rows >= LEAST_ROWS or its.num_shares == 1]
