"""The figures of many scores: means with standard errors, clustered by prompt.

Samples of one prompt are not independent, so a figure's error is that of the prompts' own means:
with one sample each it is the usual standard error of a mean.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.tasks.base import Metric
from pipeline.tasks.pass_at_k import pass_at_k


@dataclass(frozen=True, slots=True)
class Figure:
    value: float
    stderr: float | None
    """Of the value; None if there is only one prompt."""
    num: int
    """How many values it is the mean of."""


def ratio(pairs: Sequence[tuple[float, float]], num: int) -> Figure:
    """Sum over sum of (value, weight), one pair of each prompt.

    The error is that of a ratio of two means (the delta method). With equal weights it is the
    sample's standard deviation over the root of the number of prompts.
    """
    count, total = len(pairs), math.fsum(weight for _, weight in pairs)
    if not total:
        return Figure(0.0, None, num)
    value = math.fsum(value for value, _ in pairs) / total
    if count < 2:
        return Figure(value, None, num)
    squares = math.fsum((its - value * weight) ** 2 for its, weight in pairs)
    return Figure(value, math.sqrt(squares * count / (count - 1)) / total, num)


def mean_by_prompt(values: Iterable[tuple[str, float, float]]) -> Figure:
    """The weighted mean of (prompt, value, weight), where a prompt's samples share its weight."""
    of_prompt: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for prompt, value, weight in values:
        of_prompt[prompt].append((value * weight, weight))
    num = sum(map(len, of_prompt.values()))
    pairs = [
        (math.fsum(v for v, _ in its) / len(its), math.fsum(w for _, w in its) / len(its))
        for its in of_prompt.values()
    ]
    return ratio(pairs, num)


def pass_at_figures(
    ks: Sequence[int], scores: Iterable[dict[str, Any]], num_prompts: int, samples: Counter[str]
) -> dict[int, Figure]:
    """k -> pass@k over all prompts; a prompt without any generation, which is not in `samples`,
    counts as 0."""
    correct = Counter(score["row_id"] for score in scores if score["passed"])
    zeros = [(0.0, 1.0)] * (num_prompts - len(samples))

    def figure(k: int) -> Figure:
        found = [(pass_at_k(num, correct[prompt], k), 1.0) for prompt, num in samples.items()]
        return ratio(found + zeros, num_prompts)

    return {k: figure(k) for k in ks}


def metric_figures(
    metrics: Sequence[Metric], scores: Sequence[Mapping[str, Any]]
) -> dict[str, Figure]:
    """Name -> figure. A row that could not be judged at all, for want of a test, counts as 0."""
    return {
        metric.name: mean_by_prompt(
            (
                score["row_id"],
                score.get(metric.name, 0.0),
                score.get(metric.weight, 0.0) if metric.weight else 1.0,
            )
            for score in scores
        )
        for metric in metrics
    }


def tables(scores: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Figure]]:
    """Table -> category -> figure, of all tallies; the categories in alphabetical order."""
    found: dict[str, dict[str, list[tuple[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        for table, category, value in score["tallies"]:
            found[table][category].append((score["row_id"], value))
    return {
        table: {name: _of_tallies(its) for name, its in sorted(categories.items())}
        for table, categories in sorted(found.items())
    }


def _of_tallies(values: Sequence[tuple[str, float]]) -> Figure:
    """The mean of (prompt, value), of which a prompt may have several."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for prompt, value in values:
        sums[prompt][0] += value
        sums[prompt][1] += 1.0
    return ratio([(value, weight) for value, weight in sums.values()], len(values))
