"""decoding.suppress_eos together with top_k, top_p and temperature.

No authors combine the two; what holds is the order of their codes. LLaDA's: `logits` rules EOS out
before anything is computed from the logits, so filters never see it. `confidence` and `softmax`
take effect when a word is chosen, so an end may be filtered and drawn as any other word; then its
position waits, and `softmax` leaves the ends out of the probabilities that the confidences of
others are: those of the filtered words, or those at temperature 1 over all words.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.filters import seen
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals, is_last
from engine.decoding.suppress import held_back, put_last
from engine.decoding.threshold import Threshold
from engine.parallel import ALONE, TensorParallel
from tests.engine.filtered import (
    MIXED,
    ByDtype,
    Settings,
    filtered_batch,
    plain_view,
    with_filters,
)
from tests.engine.graphed import MODELS, engines, requests_of_both_kinds, results_of
from tests.engine.ragged import MASK, STRATEGIES, VOCAB
from tests.engine.test_suppress import CONFIG, END, TURN_END
from tests.engine.thread_ranks import on_ranks
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same

FORMS = ["logits", "confidence", "softmax"]
ENDS = [END, TURN_END]
CAUSAL = {"name": "block_causal"}


def with_ends(
    settings: list[Settings], strategy: DecodingStrategy
) -> tuple[AskedPositions, Tensor]:
    """At many positions an end is the likeliest word, alone or just before another."""
    asked, logits_MV = filtered_batch(settings, strategy=strategy)
    logits_MV[::3, END] = logits_MV[::3].max(-1).values + 0.5
    logits_MV[1::4, TURN_END] = logits_MV[1::4].max(-1).values + 0.1
    return asked, logits_MV


def proposed(
    strategy: DecodingStrategy,
    asked: AskedPositions,
    logits_MV: Tensor,
    rank: TensorParallel = ALONE,
    **more: object,
) -> Proposals:
    """As engine/decide.py does. The logits that it is given are as before afterwards."""
    held, words = held_back(strategy, CONFIG), rank.share(VOCAB)
    local_MU = logits_MV[:, words.start : words.stop].clone()
    logits = Logits(local_MU, VOCAB, rank, uncounted=held.uncounted, **more)  # type: ignore[arg-type]
    logits.forbid(held.forbidden)
    before_MU = logits.local_MU.clone()
    proposals = put_last(held.last, strategy.propose(asked, seen(logits, asked)))
    assert torch.equal(logits.local_MU, before_MU)
    return proposals


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("top_p_first", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_proposals_are_those_of_the_definitions(form: str, top_p_first: bool, size: int) -> None:
    strategy = Threshold(suppress_eos=form)
    asked, logits_MV = with_ends(MIXED, strategy)
    asked = with_filters(asked, MIXED, top_p_first)
    found = (
        on_ranks(size, lambda rank: proposed(strategy, asked, logits_MV, rank))
        if size > 1
        else [proposed(strategy, asked, logits_MV)]
    )
    num_ends = num_others = 0
    for row, b in enumerate(asked.sequence_M.tolist()):
        z = logits_MV[row].tolist()
        if form == "logits":
            z[END] = -torch.inf
        view, kept = plain_view(z, MIXED[b], top_p_first)
        word = int(found[0].token_M[row])
        assert word in kept
        waits = form != "logits" and word in ENDS
        assert bool(is_last(found[0].log_odds_M[row])) == waits
        num_ends, num_others = num_ends + waits, num_others + (not waits)
        if waits:
            continue
        counted = torch.tensor(view, dtype=torch.float64)
        if form == "softmax":
            counted[ENDS] = -torch.inf
        p = float(counted.softmax(0)[word])
        assert float(found[0].confidence_M[row]) == pytest.approx(p, rel=2e-6), MIXED[b]
    assert num_others > 20
    assert (num_ends > 5) == (form != "logits")
    for other in found[1:]:
        for mine, its in zip(found[0][:4], other[:4], strict=True):
            assert torch.equal(mine, its)


@pytest.mark.parametrize(
    "settings", [(0.7, None, 0.95, "raw"), (0.9, 2, None, "raw"), (0.9, 3, None, "filtered")]
)
def test_a_word_behind_an_end_has_its_confidence_among_the_words_that_count(
    settings: Settings,
) -> None:
    """An end leads, and of all other words one has nearly all that is left: where it is drawn it is
    sure, whichever words it was drawn from."""
    strategy = Threshold(suppress_eos="softmax")
    asked, logits_MV = filtered_batch([settings], count=40)
    logits_MV[:, :MASK] = -6.0
    logits_MV[:, END], logits_MV[:, 7] = 4.2, 4.0
    proposals = proposed(strategy, asked, logits_MV)
    is_drawn_M = proposals.token_M == 7
    assert 5 < int(is_drawn_M.sum()) < 35
    assert (proposals.confidence_M[is_drawn_M] > 0.99).all()
    assert (proposals.token_M[~is_drawn_M] == END).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_sequence_is_decided_alone_as_among_others(
    strategy: DecodingStrategy, form: str, dtype: torch.dtype
) -> None:
    """In bfloat16 the positions without filters are read from other logits than the rest."""
    strategy = replace(strategy, suppress_eos=form)
    asked, logits_MV = with_ends(MIXED, strategy)
    logits_MV = logits_MV.to(dtype)
    together = proposed(strategy, asked, logits_MV, reduction=ByDtype())
    commit_M = strategy.choose(asked, together)
    for b, settings in enumerate(MIXED):
        rows = (asked.sequence_M == b).nonzero()[:, 0]
        first, end = int(rows[0]), int(rows[-1]) + 1
        per_sequence = {
            name: getattr(asked, name)[b : b + 1]
            for name in (
                *("num_masked_at_block_start_B", "num_iterations_in_block_B"),
                *("num_iterations_B", "seed_B", "temperature_B"),
            )
        }
        alone = asked.rows(first, end)._replace(
            sequence_M=torch.zeros(end - first, dtype=torch.int64),
            any_sampled=settings[0] > 0,
            **per_sequence,
        )
        alone = with_filters(alone, [settings])
        proposals = proposed(strategy, alone, logits_MV[first:end], reduction=ByDtype())
        assert torch.equal(proposals.token_M, together.token_M[first:end])
        torch.testing.assert_close(
            proposals[1:4], tuple(x[first:end] for x in together[1:4]), rtol=1e-5, atol=1e-6
        )
        assert torch.equal(strategy.choose(alone, proposals), commit_M[first:end])


@pytest.mark.parametrize("form", FORMS)
def test_graphs_decide_as_eager_forwards(form: str) -> None:
    decoding = {"name": "threshold", "suppress_eos": form}
    requests = [
        replace(request, top_p=0.8, confidence=("raw", "filtered")[i // 2 % 2])
        for i, request in enumerate(requests_of_both_kinds(6))
    ]
    eager, engine, capture = engines(MODELS["block-causal"], Combination(CAUSAL, decoding))
    assert_same(results_of(engine, requests), results_of(eager, requests), "graphs")
    assert capture.num_replays
