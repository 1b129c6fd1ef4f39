"""pass@k: how likely is it that one of k samples of a prompt passes?"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from engine.errors import UserError


def count_samples(rows: Iterable[dict[str, Any]]) -> tuple[int, Counter[str]]:
    """The number of prompts, and the number of samples of each prompt with at least one generation.

    Prompts without one are left out of the second: they cannot pass, and an input row with an
    invalid setting has a single output row, which must not limit the k of pass@k.
    """
    num_rows: Counter[str] = Counter()
    generated: set[str] = set()
    for row in rows:
        num_rows[row["row_id"]] += 1
        if row["error"] is None:
            generated.add(row["row_id"])
    samples = {row_id: count for row_id, count in num_rows.items() if row_id in generated}
    return len(num_rows), Counter(samples)


def choose_ks(ks: Sequence[int] | None, num_samples: Counter[str]) -> list[int]:
    """The k of the pass@k to report: those given, or by default 1 and the largest possible k, which
    is the fewest samples of any prompt with a generation.

    Raises:
        UserError: a given k is out of range.
    """
    least = min(num_samples.values(), default=1)
    chosen = sorted(set(ks or (1, least)))
    for k in chosen:
        if not 1 <= k <= least:
            raise UserError(
                f"k={k}: pass@k needs k samples of every prompt, and the fewest is {least}; "
                f"choose 1 to {least}, or run with more samples (num_samples)"
            )
    return chosen


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k samples passes): Chen et al., arXiv 2107.03374."""
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)
