"""What holds for all decoding strategies: no sequence depends on its neighbours, how positions are
ranked, and which settings are refused."""

from itertools import pairwise

import pytest
import torch

from engine.decoding import DECODERS, DecodingStrategy
from engine.decoding.fixed import Fixed
from engine.decoding.logits import Logits
from engine.decoding.positions import (
    AskedPositions,
    is_best,
    joined,
    rank_of,
    rank_within,
)
from tests.engine.ragged import STRATEGIES, VOCAB, ragged, run


def of_sequence(asked: AskedPositions, b: int) -> AskedPositions:
    """The requested positions of sequence b alone."""
    rows = asked.sequence_M == b
    per_sequence = {
        name: value[b : b + 1]
        for name, value in asked._asdict().items()
        if name.endswith("_B") and value is not None
    }
    return asked._replace(
        sequence_M=torch.zeros(int(rows.sum()), dtype=torch.int64),
        position_M=asked.position_M[rows],
        offset_M=asked.offset_M[rows],
        token_M=asked.token_M[rows],
        is_masked_M=asked.is_masked_M[rows],
        any_sampled=bool(asked.temperature_B[b] > 0),
        state={name: state[rows] for name, state in asked.state.items()},
        **per_sequence,
    )


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_decisions_do_not_depend_on_other_sequences(strategy: DecodingStrategy) -> None:
    counts = [7, 1, 32, 4]
    asked, logits_MV = ragged(counts, temperatures=[0.0, 0.8, 1.5, 0.0], strategy=strategy)
    together, commit_M = run(strategy, asked, logits_MV)
    for b in range(4):
        rows = asked.sequence_M == b
        alone, commit_alone_M = run(strategy, of_sequence(asked, b), logits_MV[rows])
        assert torch.equal(commit_M[rows], commit_alone_M)
        assert torch.equal(together.token_M[rows], alone.token_M)
        for ours, theirs in zip(together[1:4], alone[1:4], strict=True):
            torch.testing.assert_close(ours[rows], theirs, rtol=1e-5, atol=1e-6)
        for name, state in together.state.items():
            torch.testing.assert_close(state[rows], alone.state[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_proposals_may_be_made_in_pieces(strategy: DecodingStrategy) -> None:
    asked, logits_MV = ragged([9, 5, 12], temperatures=[0.0, 1.2, 0.0], strategy=strategy)
    whole = strategy.propose(asked, Logits(logits_MV, VOCAB))
    cuts = [0, 4, 5, 20, 26]
    pieces = joined(
        [
            strategy.propose(asked.rows(first, end), Logits(logits_MV[first:end], VOCAB))
            for first, end in pairwise(cuts)
        ]
    )
    assert torch.equal(whole.token_M, pieces.token_M)
    for ours, theirs in zip(whole[1:4], pieces[1:4], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert whole.state.keys() == pieces.state.keys()
    for name, state in whole.state.items():
        torch.testing.assert_close(state, pieces.state[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if not s.may_commit_nothing], ids=str)
def test_every_sequence_commits_something(strategy: DecodingStrategy) -> None:
    asked, logits_MV = ragged([3, 1, 9, 2, 16], seed=2, strategy=strategy)
    _, commit_M = run(strategy, asked, logits_MV * 0.1)
    assert set(asked.sequence_M[commit_M].tolist()) == set(range(5))


def test_ties_go_to_the_earlier_position() -> None:
    score_M = torch.tensor([0.5, 0.9, 0.9, 0.5, 0.1, 0.1, 0.1])
    group_M = torch.tensor([0, 0, 0, 0, 5, 5, 5])
    assert rank_within(group_M, score_M).tolist() == [2, 0, 1, 3, 0, 1, 2]


@pytest.mark.parametrize("counts", [[1], [5], [3, 0, 7, 1], [32] * 8, [0, 4], [4, 0]], ids=str)
def test_the_best_is_the_first_rank(counts: list[int]) -> None:
    """With ties, infinite scores, and positions that are not masked."""
    asked, _ = ragged(counts)
    for seed in range(10):
        torch.manual_seed(seed)
        draw_M, score_M = torch.rand(sum(counts)), (2 * torch.randn(sum(counts))).round()
        score_M[draw_M > 0.9] = torch.inf
        score_M[draw_M < 0.1] = -torch.inf
        some = asked._replace(is_masked_M=torch.rand(sum(counts)) > 0.3)
        assert torch.equal(is_best(some, score_M), rank_of(some, score_M) == 0)
        all_masked = some._replace(may_hold_tokens=False)
        assert torch.equal(is_best(all_masked, score_M), is_best(asked, score_M))
        assert torch.equal(rank_of(all_masked, score_M), rank_of(asked, score_M))


def test_positions_whose_probabilities_round_to_1_keep_their_order() -> None:
    """Their float32 probabilities tie at 1, but the strategies rank by quantities that do not."""
    asked, logits_MV = ragged([6])
    logits_MV[:] = 0.0
    logits_MV[:, 3] = torch.tensor([30.0, 33.0, 31.0, 35.0, 34.0, 32.0])
    assert (logits_MV.softmax(-1)[:, 3] == 1).all()
    for order in ("confidence", "margin", "entropy"):
        _, commit_M = run(Fixed(iterations_per_block=3, order=order), asked, logits_MV)
        assert commit_M.tolist() == [False, False, False, True, True, False], order


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [
        ("threshold", {"threshold": 0.0}, "decoding.threshold=0.0"),
        ("threshold", {"threshold": 1.5}, "decoding.threshold=1.5"),
        ("fixed", {"iterations_per_block": 0}, "decoding.iterations_per_block=0"),
        ("threshold", {"iterations_per_block": 0}, "decoding.iterations_per_block=0"),
        ("fixed", {"order": "best"}, "decoding.order='best'"),
        ("fixed", {"remainder": "last"}, "decoding.remainder='last': give one of first, spread"),
        ("factor", {"factor": 0.0}, "decoding.factor=0.0"),
        ("factor", {"form": "last"}, "decoding.form='last': give one of paper, code"),
        ("hierarchical", {"threshold": 0.3}, "decoding.low_threshold=0.4"),
        ("hierarchical", {"low_threshold": -0.1}, "decoding.low_threshold=-0.1"),
        ("credit", {"beta": 1.5}, "decoding.beta=1.5"),
        ("credit", {"alpha": -1.0}, "decoding.alpha=-1.0"),
        ("entropy_bound", {"bound": -1.0}, "decoding.bound=-1.0"),
        ("klass", {"num_stable": 0}, "decoding.num_stable=0"),
        ("klass", {"kl_threshold": 0.0}, "decoding.kl_threshold=0.0"),
        ("edit", {"max_post_iterations": -1}, "decoding.max_post_iterations=-1"),
        ("edit", {"edit_threshold": -0.1}, "decoding.edit_threshold=-0.1: give 0"),
        ("edit", {"edit_threshold": 2.0}, "decoding.edit_threshold=2.0"),
        ("dream", {"iterations_per_block": 0}, "decoding.iterations_per_block=0"),
        ("dream", {"order": "origin"}, "decoding.order='origin': give one of confidence, "),
        ("dream", {"order_temperature": -1.0}, "decoding.order_temperature=-1.0"),
        (
            "dream",
            {"order": "random", "order_temperature": 0.5},
            "decoding.order_temperature=0.5 with decoding.order=random",
        ),
        ("dream", {"eps": 0.0}, "decoding.eps=0.0"),
        ("dream", {"eps": 1.0}, "decoding.eps=1.0"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        DECODERS[name](**settings)
