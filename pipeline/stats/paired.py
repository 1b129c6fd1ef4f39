"""Compares two runs prompt by prompt: means, their standard errors, and an exact test.

The unit is the prompt: its value is the mean over its samples, so samples of one prompt count as
one cluster. For means of such values the cluster-robust standard error is that of independent
values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959964
"""A normal variable is within this many standard deviations of its mean with probability 0.95."""


@dataclass(frozen=True, slots=True)
class Mean:
    value: float
    se: float | None
    """Standard error; None for a single prompt."""
    num: int
    """Prompts."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Values of the same prompts in two runs, as second minus first."""

    difference: float
    """Mean over the prompts."""
    se: float | None
    """Its standard error; None for a single prompt."""
    num: int
    num_better: int
    """Prompts with a higher value in the second run."""
    num_worse: int
    p: float
    """Of the two-sided exact test of `num_better` against `num_worse`: how likely a split at least
    as uneven is if both are equally likely. With values 0 and 1 this is McNemar's test, with others
    the sign test."""
    is_binary: bool
    """Whether all values are 0 or 1."""

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % interval of the difference. Of values 0 and 1: the adjusted Wald interval of
        Agresti and Min (Statistics in Medicine 24, 2005), half a prompt added to each of the four
        outcomes, which also holds where no prompt differs. Of others: the normal interval; of a
        single prompt: all that is possible."""
        if self.is_binary:
            num = self.num + 2
            middle = (self.num_better - self.num_worse) / num
            spread = (self.num_better + self.num_worse + 1) / num - middle**2
            reach = Z_95 * math.sqrt(spread / num)
        elif self.se is None:
            return -1.0, 1.0
        else:
            middle, reach = self.difference, Z_95 * self.se
        return max(-1.0, middle - reach), min(1.0, middle + reach)


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of at least one value, one for each prompt."""
    num = len(values)
    mean = math.fsum(values) / num
    return Mean(mean, _standard_error(values, mean), num)


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Of the values of the same prompts, at least one, in the same order."""
    differences = [after - before for before, after in zip(first, second, strict=True)]
    mean = math.fsum(differences) / len(differences)
    better = sum(difference > 0 for difference in differences)
    worse = sum(difference < 0 for difference in differences)
    return Paired(
        difference=mean,
        se=_standard_error(differences, mean),
        num=len(differences),
        num_better=better,
        num_worse=worse,
        p=exact_p(better, worse),
        is_binary=all(value in (0, 1) for value in (*first, *second)),
    )


def exact_p(better: int, worse: int) -> float:
    """The two-sided p-value of `better` heads and `worse` tails of a fair coin: twice the smaller
    tail of the binomial distribution, at most 1. (McNemar's exact test.)"""
    num, fewer = better + worse, min(better, worse)
    term = tail = 1
    for k in range(fewer):
        term = term * (num - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**num) if num else 1.0


def _standard_error(values: Sequence[float], mean: float) -> float | None:
    if len(values) < 2:
        return None
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))
