"""Counts the output rows of a run by finish reason, length and error, one part at a time.

The rows' text is not read. Memory does not grow with the number of rows: only counts and a bounded
number of error messages are kept. Messages that differ only in their numbers are one kind of error.
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
"""Kinds of error that are told apart; all others are counted together as OTHER."""
NUM_EXAMPLES = 3
KEY_LETTERS, MESSAGE_LETTERS = 300, 1000
"""How much of a message decides its kind, and how much is kept."""
OTHER = "(errors of further kinds)"


@dataclass(slots=True)
class ErrorKind:
    """Errors whose messages differ only in their numbers."""

    message: str
    """The message of the first of them."""
    count: int = 0
    row_ids: list[str] = field(default_factory=list)
    """Of the first few."""


@dataclass(slots=True)
class Outcomes:
    """The counts over all parts that were added."""

    reasons: Counter[str] = field(default_factory=Counter)
    """Finish reason -> rows."""
    sums: Counter[str] = field(default_factory=Counter)
    """Column -> its sum over all rows; the columns are SUMS."""
    prompt_lengths: Counter[int] = field(default_factory=Counter)
    """Length in tokens -> rows, without failed rows."""
    generated_lengths: Counter[int] = field(default_factory=Counter)
    """The same for the generated tokens before EOS."""
    kinds: dict[str, ErrorKind] = field(default_factory=dict)
    """Message with its numbers replaced by # -> this kind of error."""
    first_failed: int | None = None
    """The first part that has a failed row."""

    def errors(self, limit: int) -> list[ErrorKind]:
        """The `limit` most frequent kinds of error."""
        return sorted(self.kinds.values(), key=lambda kind: -kind.count)[:limit]

    def add(self, table: pa.Table, part: int | None = None) -> None:
        """Count the rows of a part; `table` has the columns COLUMNS."""
        for reason in pc.value_counts(table["finish_reason"]).to_pylist():
            self.reasons[reason["values"]] += reason["counts"]
        for name in SUMS:
            self.sums[name] += pc.sum(table[name]).as_py() or 0
        succeeded = table.filter(pc.is_null(table["error"]))
        _count(self.prompt_lengths, succeeded["num_prompt_tokens"])
        _count(self.generated_lengths, succeeded["num_generated_tokens"])
        if self.add_errors(table).num_rows and self.first_failed is None:
            self.first_failed = part

    def add_errors(self, table: pa.Table) -> pa.Table:
        """Count the failed rows by kind of error, and return them."""
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
