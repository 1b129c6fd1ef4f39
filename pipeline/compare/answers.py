"""How far do two runs give the same answers, whatever is right?"""

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from pipeline.compare.quality import Values
from pipeline.stats.distance import relative_distance

ANSWER = ["row_id", "sample_index", "token_ids", "error"]
"""The columns of data/ that are read."""
Key = tuple[str, int]
MOST_DISTANCES = 5_000
"""Of more answers than this, every second, third, ... is compared."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the answers (row_id, sample_index) that both runs hold."""

    num: int
    """Answers that were compared."""
    num_same: int
    """Those with the same tokens."""
    distances: Values
    """row_id -> mean over its samples of the edit distance in tokens, as a share of the longer
    answer. An answer that one run has and the other failed at counts as 1."""

    @property
    def distance(self) -> float:
        """The mean over the prompts."""
        return sum(self.distances.values()) / len(self.distances)


def answers_of(rows: pa.Table, ids: Collection[str]) -> dict[Key, list[int] | None]:
    """The tokens of each answer to these prompts; None for a failed row."""
    wanted = set(ids)
    columns = (rows[name].to_pylist() for name in ANSWER)
    return {
        (row_id, sample): None if error is not None else tokens
        for row_id, sample, tokens, error in zip(*columns, strict=True)
        if row_id in wanted
    }


def agreement(first: pa.Table, second: pa.Table, ids: Collection[str]) -> Agreement | None:
    """Of the rows of two runs, with the columns ANSWER. None if there is no answer to compare."""
    mine, its = answers_of(first, ids), answers_of(second, ids)
    keys = [key for key in mine if key in its]
    keys = keys[:: max(1, -(-len(keys) // MOST_DISTANCES))]
    if not keys:
        return None
    found: dict[str, list[float]] = {}
    for key in keys:
        found.setdefault(key[0], []).append(_distance(mine[key], its[key]))
    return Agreement(
        num=len(keys),
        num_same=sum(mine[key] == its[key] for key in keys),
        distances={row_id: sum(its) / len(its) for row_id, its in found.items()},
    )


def _distance(first: list[int] | None, second: list[int] | None) -> float:
    if first is None or second is None:
        return float(first is not second)
    return relative_distance(first, second)
