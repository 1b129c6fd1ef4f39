"""top_k, top_p and temperature as views of the logits, against their definitions word by word."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.config import BYTES_PER_LOGIT
from engine.decoding.base import DecodingStrategy
from engine.decoding.filters import DROPPED, bytes_per_logit, seen
from engine.decoding.logits import Logits
from engine.decoding.noise import noise_of
from engine.decoding.positions import AskedPositions, Proposals
from engine.decoding.propose import propose
from engine.decoding.threshold import Threshold
from engine.model.authors import AuthorsRules
from engine.parallel import ALONE, TensorParallel
from engine.sampling import View, as_authors, filters_of
from tests.engine.filtered import (
    MIXED,
    ByDtype,
    Settings,
    filtered_batch,
    kept_words,
    plain_view,
    request_of,
    with_filters,
)
from tests.engine.live_bytes import LiveBytes
from tests.engine.ragged import MASK, STRATEGIES, VOCAB, ragged
from tests.engine.thread_ranks import on_ranks


def tied(logits_MV: Tensor) -> Tensor:
    return logits_MV.clamp(-4, 4).div(2).round() * 2


@pytest.mark.parametrize("top_p_first", [False, True])
@pytest.mark.parametrize("change", [torch.clone, tied])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_view_keeps_the_words_of_the_definitions(
    size: int, change: Callable[[Tensor], Tensor], top_p_first: bool
) -> None:
    asked, logits_MV = filtered_batch(MIXED, top_p_first=top_p_first)
    logits_MV = change(logits_MV)
    every_MW = torch.arange(VOCAB).expand(len(logits_MV), -1)

    def view(rank: TensorParallel) -> tuple[Tensor, Tensor, Proposals]:
        words = rank.share(VOCAB)
        local_MU = logits_MV[:, words.start : words.stop].clone()
        logits = Logits(local_MU, VOCAB, rank)
        its = seen(logits, asked)
        assert torch.equal(logits.local_MU, logits_MV[:, words.start : words.stop])
        assert its.drawn_MU is not None
        drawn = replace(its, local_MU=its.drawn_MU, drawn_MU=None)
        return its.at(every_MW), drawn.at(every_MW), propose(asked, its)

    views = on_ranks(size, view) if size > 1 else [view(ALONE)]
    for its_MV, drawn_MV, proposals in views:
        assert torch.equal(proposals.token_M, views[0][2].token_M)
        assert torch.equal(proposals.log_odds_M, views[0][2].log_odds_M)
        for row, b in enumerate(asked.sequence_M.tolist()):
            expected, kept = plain_view(logits_MV[row].tolist(), MIXED[b], top_p_first)
            assert its_MV[row].tolist() == expected, MIXED[b]
            if filters_of(request_of(MIXED[b]))[0] is View.DRAWN:
                found = {w for w, x in enumerate(drawn_MV[row].tolist()) if x != DROPPED}
                assert found == kept, MIXED[b]
            assert int(proposals.token_M[row]) in kept
            word = int(proposals.token_M[row])
            p = torch.tensor(expected, dtype=torch.float64).softmax(0)[word]
            assert float(proposals.confidence_M[row]) == pytest.approx(float(p), rel=2e-6)


def test_some_filters_drop_words_that_are_drawn_otherwise() -> None:
    """So that the tests above and below see filters at work."""
    asked, logits_MV = filtered_batch([(2.0, None, None, "raw")], count=40)
    free_M = propose(asked, Logits(logits_MV, VOCAB)).token_M
    for settings in ((2.0, 2, None, "raw"), (2.0, None, 0.5, "filtered")):
        narrow = with_filters(asked, [settings])
        narrow_M = propose(narrow, seen(Logits(logits_MV, VOCAB), narrow)).token_M
        assert (narrow_M != free_M).sum() > 5


def test_one_word_left_has_confidence_one_and_finite_log_odds() -> None:
    for settings in ((1.0, 1, None, "filtered"), (0.5, None, 1e-6, "filtered")):
        asked, logits_MV = filtered_batch([settings])
        view = seen(Logits(logits_MV, VOCAB), asked)
        proposals = propose(asked, view)
        assert proposals.confidence_M.tolist() == [1.0] * len(logits_MV)
        assert proposals.log_odds_M.isfinite().all()
        assert torch.equal(proposals.token_M, logits_MV.argmax(-1))
        assert view.entropy().tolist() == [0.0] * len(logits_MV)
        assert view.margin().isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_sequence_is_decided_alone_as_among_others(
    strategy: DecodingStrategy, dtype: torch.dtype
) -> None:
    """Whatever filters its neighbours have, and whether any has one."""
    asked, logits_MV = filtered_batch(MIXED, strategy=strategy)
    logits_MV = logits_MV.to(dtype)
    logits = Logits(logits_MV, VOCAB, reduction=ByDtype())
    together = strategy.propose(asked, seen(logits, asked))
    commit_M = strategy.choose(asked, together)
    for b, settings in enumerate(MIXED):
        rows = (asked.sequence_M == b).nonzero()[:, 0]
        first, end = int(rows[0]), int(rows[-1]) + 1
        alone = asked.rows(first, end)._replace(
            sequence_M=torch.zeros(end - first, dtype=torch.int64),
            any_sampled=settings[0] > 0,
            **{
                name: getattr(asked, name)[b : b + 1]
                for name in (
                    *("num_masked_at_block_start_B", "num_iterations_in_block_B"),
                    *("num_iterations_B", "seed_B", "temperature_B"),
                )
            },
        )
        alone = with_filters(alone, [settings])
        logits = Logits(logits_MV[first:end], VOCAB, reduction=ByDtype())
        proposals = strategy.propose(alone, seen(logits, alone))
        assert torch.equal(proposals.token_M, together.token_M[first:end])
        torch.testing.assert_close(
            (*proposals[1:4], *proposals.state.values()),
            (*(x[first:end] for x in (*together[1:4], *together.state.values())),),
            rtol=1e-5,
            atol=1e-6,
        )
        assert torch.equal(strategy.choose(alone, proposals), commit_M[first:end])


def test_a_logit_that_is_not_finite_shows_through_every_filter() -> None:
    for value in (torch.nan, torch.inf):
        asked, logits_MV = filtered_batch(MIXED, count=2)
        logits_MV[::2, 4] = value
        confidence_M = propose(asked, seen(Logits(logits_MV, VOCAB), asked)).confidence_M
        assert confidence_M.isnan().tolist() == [True, False] * len(MIXED)


@pytest.mark.parametrize(
    "settings",
    [
        (0.7, 5, None, "filtered"),
        (0.7, 5, None, "raw"),
        (1.0, None, 0.8, "filtered"),
        (1.4, 6, 0.9, "filtered"),
        (1.4, 6, 0.9, "raw"),
        (0.6, None, None, "filtered"),
    ],
    ids=str,
)
def test_draws_follow_the_filtered_distribution(settings: Settings) -> None:
    """Chi-square over 20,000 positions with the same logits: below its 99.99 % quantile."""
    count = 20_000
    asked, logits_MV = filtered_batch([settings], count=9)
    asked = asked._replace(
        sequence_M=torch.zeros(count, dtype=torch.int64),
        position_M=torch.arange(count),
    )
    logits_V = logits_MV[0]
    temperature, top_k, top_p, _ = settings
    scaled = (logits_V / temperature).tolist()
    kept = sorted(kept_words(scaled, top_k, top_p, top_p_first=False))
    p = torch.tensor([scaled[word] for word in kept]).double().softmax(0)
    logits = Logits(logits_V.expand(count, -1).contiguous(), VOCAB)
    drawn = propose(asked, seen(logits, asked)).token_M.bincount(minlength=VOCAB).double()
    assert drawn.sum() == drawn[kept].sum() == count
    usual = p * count >= 5
    observed = torch.cat((drawn[kept][usual], drawn[kept][~usual].sum()[None]))
    expected = torch.cat((p[usual], p[~usual].sum()[None])) * count
    has_any = expected > 0
    chi_square = ((observed - expected)[has_any] ** 2 / expected[has_any]).sum()
    freedom = int(has_any.sum()) - 1
    assert freedom >= 3
    # Wilson and Hilferty's approximation of the quantile.
    most = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < most


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_views_stay_within_the_bytes_that_a_piece_of_logits_is_planned_with(
    strategy: DecodingStrategy,
) -> None:
    num_words, count = 8192, 4
    for settings in ((0.7, None, None), (0.7, 5, 0.9), (0.0, 5, 0.9)):
        both: list[Settings] = [(*settings, "filtered"), (*settings, "raw")]
        asked, _ = ragged([count] * 2, [its[0] for its in both], strategy=strategy)
        asked = with_filters(asked, both)
        logits_MV = torch.randn(2 * count, num_words)
        per_position = sum(x.nbytes for x in asked.state.values()) * 4 + 2 * count * 512
        with LiveBytes() as live:
            logits = Logits(logits_MV.clone(), num_words)
            strategy.propose(asked, seen(logits, asked))
        planned = BYTES_PER_LOGIT[asked.any_sampled] + bytes_per_logit(asked.filters, 1)
        assert live.peak <= planned * 2 * count * num_words + per_position


def test_what_a_request_leaves_open_is_as_the_authors_have_it() -> None:
    greedy = replace(request_of((0.0, 3, 0.5, "raw")), confidence=None)
    dream = AuthorsRules(confidence="filtered", filters_greedy=True)
    for rules, view in (
        (AuthorsRules(), View.PLAIN),
        (AuthorsRules(confidence="filtered"), View.PLAIN),
        (dream, View.FILTERED),
    ):
        assert filters_of(as_authors(greedy, rules))[0] is view
    warm = replace(greedy, temperature=0.5)
    assert filters_of(as_authors(warm, AuthorsRules())) == (View.DRAWN, 3, 0.5)
    assert filters_of(as_authors(warm, dream)) == (View.FILTERED, 3, 0.5)
    raw = replace(warm, confidence="raw")
    assert filters_of(as_authors(raw, dream)) == (View.DRAWN, 3, 0.5)
    open_to_all = replace(warm, top_k=None, top_p=1.0)
    assert filters_of(as_authors(open_to_all, AuthorsRules())) == (View.PLAIN, 0, 1.0)
    assert filters_of(as_authors(open_to_all, dream)) == (View.FILTERED, 0, 1.0)
    at_one = replace(open_to_all, temperature=1.0)
    assert filters_of(as_authors(at_one, dream)) == (View.PLAIN, 0, 1.0), "nothing changes"


def test_only_filters_cost_a_collective() -> None:
    asked, logits_MV = filtered_batch(MIXED)
    warm = filtered_batch([(0.7, None, None, "filtered")] * len(MIXED))[0]

    def count(rank: TensorParallel, asked: AskedPositions) -> int:
        words = rank.share(VOCAB)
        logits = Logits(logits_MV[:, words.start : words.stop].clone(), VOCAB, rank)
        Threshold().propose(asked, seen(logits, asked))
        return rank.num_collectives  # type: ignore[attr-defined, no-any-return]

    assert on_ranks(3, lambda rank: count(rank, warm)) == [1] * 3
    assert on_ranks(3, lambda rank: count(rank, asked)) == [5] * 3
    few = filtered_batch([(0.7, 3, None, "filtered")] * len(MIXED))[0]
    assert on_ranks(3, lambda rank: count(rank, few)) == [2] * 3
    assert noise_of(few) is not None
    assert logits_MV[0, MASK] == -torch.inf
