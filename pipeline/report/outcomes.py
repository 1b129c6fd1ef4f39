"""What became of all rows? Counted from data/, part by part, without their text.

What is kept does not grow with the rows: counts by length, and errors by kind, of which one is a
message with its numbers left out.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stats.formatting import one_line

SUMS = ("num_prompt_tokens", "num_generated_tokens", "num_iterations", "num_query_tokens")
COLUMNS = ["row_id", "sample_index", "finish_reason", "error", *SUMS]
MAX_KINDS = 1000
NUM_EXAMPLES = 3
KEY_LETTERS, MESSAGE_LETTERS = 300, 1000
OTHER = "(errors of further kinds)"


@dataclass(slots=True)
class ErrorKind:
    """Errors whose messages differ in numbers only."""

    message: str
    """The first one's."""
    count: int = 0
    row_ids: list[str] = field(default_factory=list)
    """The first few."""


@dataclass(slots=True)
class Outcomes:
    reasons: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    prompt_lengths: Counter[int] = field(default_factory=Counter)
    """Tokens -> rows; not of failed rows."""
    generated_lengths: Counter[int] = field(default_factory=Counter)
    kinds: dict[str, ErrorKind] = field(default_factory=dict)

    def errors(self, limit: int) -> list[ErrorKind]:
        """The most frequent kinds."""
        return sorted(self.kinds.values(), key=lambda kind: -kind.count)[:limit]

    def add(self, table: pa.Table) -> None:
        """Count a part's rows."""
        for reason in pc.value_counts(table["finish_reason"]).to_pylist():
            self.reasons[reason["values"]] += reason["counts"]
        for name in SUMS:
            self.sums[name] += pc.sum(table[name]).as_py() or 0
        good = table.filter(pc.is_null(table["error"]))
        _count(self.prompt_lengths, good["num_prompt_tokens"])
        _count(self.generated_lengths, good["num_generated_tokens"])
        self.add_errors(table)

    def add_errors(self, table: pa.Table) -> pa.Table:
        """Count the failed rows, and give them."""
        failed = table.filter(pc.is_valid(table["error"]))
        for row_id, error in zip(
            failed["row_id"].to_pylist(), failed["error"].to_pylist(), strict=True
        ):
            key = re.sub(r"\d+", "#", error[:KEY_LETTERS])
            if key not in self.kinds and len(self.kinds) >= MAX_KINDS:
                key, error = OTHER, OTHER
            kind = self.kinds.setdefault(key, ErrorKind(one_line(error, MESSAGE_LETTERS)))
            kind.count += 1
            if len(kind.row_ids) < NUM_EXAMPLES:
                kind.row_ids.append(row_id)
        return failed


def _count(counts: Counter[int], lengths: pa.ChunkedArray) -> None:
    values, amounts = np.unique(lengths.to_numpy(), return_counts=True)
    for value, amount in zip(values.tolist(), amounts.tolist(), strict=True):
        counts[value] += amount
