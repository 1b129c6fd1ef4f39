"""Means and their standard errors, by hand and against the textbook's formulas."""

import math
import statistics
from collections import Counter
from random import Random
from typing import Any

import pytest

from pipeline.tasks.base import Metric
from pipeline.tasks.figures import mean_by_prompt, metric_figures, pass_at_figures, ratio, tables


def score(prompt: str, passed: bool, **more: Any) -> dict[str, Any]:
    return {"row_id": prompt, "passed": passed, "tallies": [], **more}


def test_one_sample_each_has_the_usual_standard_error() -> None:
    draw = Random(0)
    values = [float(draw.random() < 0.3) for _ in range(50)]
    figure = mean_by_prompt((str(i), value, 1.0) for i, value in enumerate(values))
    assert figure.value == pytest.approx(statistics.mean(values))
    assert figure.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(50))


def test_samples_of_one_prompt_are_no_independent_values() -> None:
    """Ten times the same sample says no more than one."""
    once = mean_by_prompt((str(i), float(i % 3 == 0), 1.0) for i in range(20))
    often = mean_by_prompt((str(i), float(i % 3 == 0), 1.0) for i in range(20) for _ in range(10))
    assert often.value == pytest.approx(once.value)
    assert often.stderr == pytest.approx(once.stderr)
    assert (once.num, often.num) == (20, 200)


def test_the_error_of_a_ratio_is_that_of_many_draws() -> None:
    """Instructions by prompt: prompts with many weigh more. Against the spread over draws."""
    draw = Random(1)

    def one() -> tuple[float, float]:
        count = draw.choice([1, 1, 2, 3])
        is_able = draw.random() < 0.6
        return float(sum(draw.random() < (0.9 if is_able else 0.3) for _ in range(count))), count

    figures = [ratio([one() for _ in range(200)], 200) for _ in range(400)]
    spread = statistics.stdev(figure.value for figure in figures)
    told = statistics.mean(figure.stderr or 0.0 for figure in figures)
    assert told == pytest.approx(spread, rel=0.1)


def test_pass_at_k_counts_prompts_without_generation_as_0() -> None:
    scores = [score("a", True), score("a", False), score("b", False), score("b", False)]
    found = pass_at_figures([1, 2], scores, 3, Counter({"a": 2, "b": 2}))
    assert found[1].value == pytest.approx((0.5 + 0 + 0) / 3)
    assert found[1].stderr == pytest.approx(statistics.stdev([0.5, 0, 0]) / math.sqrt(3))
    assert found[2].value == pytest.approx(1 / 3)


def test_a_single_prompt_has_no_error() -> None:
    assert mean_by_prompt([("a", 1.0, 1.0), ("a", 0.0, 1.0)]).stderr is None
    assert ratio([], 0).value == 0.0


def test_weighted_metrics_by_hand() -> None:
    metrics = (Metric("plain"), Metric("share", weight="count"))
    scores = [
        score("a", True, plain=1.0, share=1.0, count=1),
        score("b", False, plain=0.0, share=0.5, count=4),
        score("c", False),  # a row without a test
    ]
    found = metric_figures(metrics, scores)
    assert found["plain"].value == pytest.approx(1 / 3)
    assert found["share"].value == pytest.approx((1 + 2) / 5)


def test_tables_by_hand() -> None:
    tallied = [
        score("a", True, tallies=[("kind", "x", 1.0), ("kind", "x", 0.0), ("kind", "y", 1.0)]),
        score("b", True, tallies=[("kind", "x", 1.0)]),
    ]
    found = tables(tallied)["kind"]
    assert list(found) == ["x", "y"]
    assert (found["x"].value, found["x"].num) == (pytest.approx(2 / 3), 3)
    assert found["y"].stderr is None
    # Sums 1 of 2 and 1 of 1 about 2/3: residuals -1/3 and 1/3.
    assert found["x"].stderr == pytest.approx(math.sqrt(2 * (2 / 9)) / 3)
