"""The reference's decoders on probabilities that can be checked by hand."""

import math
from typing import Any

import numpy as np
import pytest

from tests.numerics.reference_decoders import DECODERS, View
from tests.numerics.reference_words import entropy, lead_doubt, propose, softmax

WORDS = 4


def spread(likeliest: float) -> np.ndarray:
    """Logits that give word 1 this probability; the three other words share the rest."""
    rest = (1 - likeliest) / (WORDS - 1)
    return np.log([rest, likeliest] + [rest] * (WORDS - 2)).astype(np.float32)


def view(confidences: dict[int, float], **changes: Any) -> View:
    logits = {i: spread(confidence) for i, confidence in confidences.items()}
    defaults = {
        "masked": sorted(logits),
        "tokens": dict.fromkeys(logits, 9),
        "block_length": len(logits),
        "num_masked_at_block_start": len(logits),
        "iteration": 0,
        "iteration_in_block": 0,
        "temperature": 0.0,
        "seed": 1,
        "relaxation": None,
        "memory": {},
    }
    return View(**{"logits": logits, **defaults, **changes})


@pytest.mark.parametrize(
    ("name", "settings", "confidences", "expected"),
    [
        ("threshold", {}, {0: 0.5, 1: 0.6}, {1}),
        ("threshold", {}, {0: 0.95, 1: 0.5, 2: 0.91}, {0, 2}),
        ("threshold", {}, {3: 0.5, 4: 0.5}, {3}),
        ("threshold", {"iterations_per_block": 2}, {0: 0.95, 1: 0.5, 2: 0.6}, {0, 2}),
        ("threshold", {"iterations_per_block": 3}, {0: 0.95, 1: 0.5, 2: 0.91}, {0, 2}),
        ("threshold", {"iterations_per_block": 9}, {0: 0.5, 1: 0.6}, {1}),
        ("threshold", {"iterations_per_block": 1}, {0: 0.5, 1: 0.6}, {0, 1}),
        # (n + 1)(1 - c): 0.2, 0.6, 1.6
        ("factor", {}, {0: 0.6, 1: 0.9, 2: 0.8}, {1, 2}),
        ("factor", {"factor": 1.7}, {0: 0.6, 1: 0.9, 2: 0.8}, {0, 1, 2}),
        ("factor", {"factor": 0.1}, {0: 0.6, 1: 0.9, 2: 0.8}, {1}),
        ("factor", {"form": "code"}, {0: 0.6, 1: 0.9, 2: 0.8}, {0, 1, 2}),
        ("factor", {"form": "code"}, {0: 0.6, 1: 0.9, 2: 0.6}, {1}),
        ("factor", {"form": "code"}, {0: 0.4, 1: 0.3}, {0, 1}),
        ("factor", {"form": "code"}, {4: 0.3}, {4}),
        # runs 0-1, 3 and 5-6; the last one's best is low
        ("hierarchical", {}, {0: 0.5, 1: 0.6, 3: 0.45, 5: 0.3, 6: 0.35}, {1, 3}),
        ("hierarchical", {}, {0: 0.91, 1: 0.92, 2: 0.5}, {0, 1}),
        ("hierarchical", {}, {0: 0.3, 1: 0.35, 3: 0.3}, {1}),
        ("fixed", {"iterations_per_block": 2}, {0: 0.5, 1: 0.6, 2: 0.7}, {1, 2}),
        ("fixed", {"iterations_per_block": 9}, {0: 0.5, 1: 0.6, 2: 0.7}, {2}),
        ("fixed", {"order": "margin"}, {0: 0.5, 1: 0.6, 2: 0.7}, {2}),
        # entropies of 0.99, 0.95, 0.9: 0.067, 0.253, 0.435
        ("entropy_bound", {}, {0: 0.9, 1: 0.99, 2: 0.95}, {0, 1, 2}),
        ("entropy_bound", {"bound": 0.3}, {0: 0.9, 1: 0.99, 2: 0.95}, {1, 2}),
        ("entropy_bound", {"bound": 0.05}, {0: 0.9, 1: 0.99, 2: 0.95}, {1}),
        ("entropy_bound", {"bound": 0.3, "counts_own": True}, {0: 0.9, 1: 0.99, 2: 0.95}, {1}),
        ("entropy_bound", {"bound": 0.4, "counts_own": True}, {0: 0.9, 1: 0.99, 2: 0.95}, {1, 2}),
        ("entropy_bound", {"bound": 0.05, "counts_own": True}, {0: 0.9, 1: 0.99}, {1}),
    ],
)
def test_choice(
    name: str, settings: dict[str, Any], confidences: dict[int, float], expected: set[int]
) -> None:
    commits = DECODERS[name](view(confidences), **settings)
    assert set(commits) == expected
    for i, proposal in commits.items():
        assert proposal.word == 1
        assert proposal.confidence == pytest.approx(confidences[i])
        assert proposal.doubt == pytest.approx(1 - confidences[i])


def test_relaxed_threshold_is_strict_at_first() -> None:
    for iteration, expected in ((0, {1}), (2, {1}), (3, {0, 1}), (9, {0, 1})):
        seen = view({0: 0.95, 1: 0.99}, relaxation=0.02, iteration=iteration)
        assert set(DECODERS["threshold"](seen)) == expected


def test_klass_waits_until_the_distribution_is_stable() -> None:
    memory: dict[str, Any] = {}
    confidences = {0: 0.92, 1: 0.93, 2: 0.94, 3: 0.99}
    seen = [
        set(DECODERS["klass"](view(confidences | {0: moved}, memory=memory), top_k=2))
        for moved in (0.92, 0.92, 0.92, 0.5, 0.92, 0.92, 0.92)
    ]
    everyone = {0, 1, 2, 3}
    assert seen == [{3}, {3}, everyone, {1, 2, 3}, {1, 2, 3}, {1, 2, 3}, everyone]


def test_klass_commits_stable_positions_before_a_better_unstable_one() -> None:
    memory: dict[str, Any] = {}
    seen = [
        set(DECODERS["klass"](view({0: 0.92, 1: best}, memory=memory), top_k=2))
        for best in (0.5, 0.5, 0.99, 0.99, 0.99)
    ]
    assert seen == [{0}, {0}, {0}, {0}, {0, 1}]


def test_credit_raises_repeated_words() -> None:
    memory: dict[str, Any] = {}
    first = DECODERS["credit"](view({0: 0.5, 1: 0.6}, memory=memory), threshold=2.0)
    second = DECODERS["credit"](view({0: 0.5, 1: 0.6}, memory=memory), threshold=2.0)
    credits = [0.6**0.2, 0.6**0.2 * 1.8]
    for commits, held in zip((first, second), credits, strict=True):
        raised = 0.6 * (1 + held) ** 0.7
        assert commits[1].doubt == pytest.approx(0.4 / (raised + 0.4), rel=1e-5)
        assert commits[1].confidence == pytest.approx(0.6), "without credit"


def test_edit_commits_and_replaces() -> None:
    tokens = {0: 9, 1: 9, 2: 2, 3: 1, 4: 2}
    confidences = {0: 0.3, 1: 0.6, 2: 0.8, 3: 0.8, 4: 0.45}
    seen = view(confidences, masked=[0, 1], tokens=tokens)
    assert set(DECODERS["edit"](seen)) == {1, 2}
    filled = view(confidences, masked=[], tokens=tokens | {0: 1, 1: 1})
    assert set(DECODERS["edit"](filled)) == {2}
    assert filled.memory == {"num_post_iterations": 1}


def test_ranking_quantities_do_not_saturate() -> None:
    sure, surer = (np.array([0.0, gap], dtype=np.float32) for gap in (-50.0, -51.0))
    assert softmax(sure)[0] == softmax(surer)[0] == 1
    key = {"temperature": 0.0, "seed": 0, "iteration": 0, "position": 0}
    assert propose(sure, **key).doubt > propose(surer, **key).doubt > 0
    assert lead_doubt(sure) > lead_doubt(surer) > 0
    assert entropy(sure) == pytest.approx(51 * math.exp(-50), rel=1e-9)
    assert entropy(surer) == pytest.approx(52 * math.exp(-51), rel=1e-9)
    assert entropy(np.array([1.0, 1.0, -np.inf])) == pytest.approx(math.log(2))
