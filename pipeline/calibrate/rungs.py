"""On how many rows is each setting tried?

A setting's run has up to 32 parts of the first rows, each of at least 8 rows. Its first rung is a
single part, its second four, its third all of them. So a rung contains the one before, and no row
is made twice. Each rung is a share of the run (`share=0/32`), the last is the run itself.
"""

from dataclasses import dataclass
from math import ceil, log2

from pipeline.run_folder.share import Share

NUM_PARTS = 32
LEAST_ROWS = 8
"""Of a part: a rung of fewer rows tells nothing."""
GROWTH = 4
"""Parts of the second rung."""


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
    return max(LEAST_ROWS, ceil(num_rows / NUM_PARTS))


def rungs_of(num_rows: int, is_full: bool = False) -> list[Rung]:
    """The rungs, the last with all rows; `is_full`: only that."""
    per_part = part_rows(num_rows)
    num_parts = ceil(num_rows / per_part)
    single = 2 ** ceil(log2(num_parts))
    shares = [1] if is_full else sorted({single, max(1, single // GROWTH), 1}, reverse=True)
    # Each is a multiple of the next, so a rung has the parts of the one before.
    return [Rung(num, min(num_rows, ceil(num_parts / num) * per_part)) for num in shares]
