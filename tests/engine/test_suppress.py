"""decoding.suppress_eos: what each form does to proposals, on one rank and several, in torch and in
Triton, and which settings are refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.credit import Credit
from engine.decoding.dream import Dream
from engine.decoding.edit import Edit
from engine.decoding.entropy_bound import EntropyBound
from engine.decoding.factor import Factor
from engine.decoding.fixed import Fixed
from engine.decoding.klass import Klass
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals, is_last
from engine.decoding.propose import propose
from engine.decoding.suppress import held_back, put_last
from engine.decoding.threshold import Threshold
from engine.decoding.triton_reduction import TritonReduction
from engine.errors import UserError
from engine.parallel import TensorParallel
from tests.engine.graphed import MODELS, engines, requests_of_both_kinds, results_of
from tests.engine.ragged import MASK, STRATEGIES, VOCAB, certain, ragged
from tests.engine.thread_ranks import on_ranks
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import tiny_config

END, TURN_END = 3, 11
CONFIG = replace(tiny_config(), vocab_size=VOCAB, mask_token_id=MASK, eos_token_ids=(END, TURN_END))


def decide(
    strategy: DecodingStrategy, asked: AskedPositions, logits_MV: Tensor, reduction=None
) -> Callable[[TensorParallel], tuple[Proposals, Tensor]]:
    """As engine/decide.py does."""
    held = held_back(strategy, CONFIG)

    def on_rank(rank: TensorParallel) -> tuple[Proposals, Tensor]:
        words = rank.share(VOCAB)
        local_MU = logits_MV[:, words.start : words.stop].clone()
        its = {} if reduction is None else {"reduction": reduction}
        logits = Logits(local_MU, VOCAB, rank, **its, uncounted=held.uncounted)
        logits.forbid(held.forbidden)
        proposals = put_last(held.last, strategy.propose(asked, logits))
        return proposals, strategy.choose(asked, proposals)

    return on_rank


def alone(
    strategy: DecodingStrategy, asked: AskedPositions, logits_MV: Tensor
) -> tuple[Proposals, Tensor]:
    return decide(strategy, asked, logits_MV)(TensorParallel())


def with_ends(strategy: DecodingStrategy, seed: int) -> tuple[AskedPositions, Tensor]:
    """Greedy and sampled sequences, of which the last predicts ends alone."""
    asked, logits_MV = ragged([9, 1, 16, 6], [0.0, 0.8, 1.5, 0.0], seed=seed, strategy=strategy)
    logits_MV[::3, END] += 7
    logits_MV[1::3, TURN_END] += 7
    logits_MV[-6:, END] += 30
    return asked, logits_MV


@pytest.mark.parametrize("form", ["confidence", "softmax"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_ends_commit_last_and_every_sequence_commits(strategy: DecodingStrategy, form: str) -> None:
    asked, logits_MV = with_ends(strategy, 1)
    plain, _ = alone(strategy, asked, logits_MV)
    strategy = replace(strategy, suppress_eos=form)
    has_quota = isinstance(strategy, Fixed | Dream) or (
        isinstance(strategy, Threshold) and strategy.iterations_per_block is not None
    )
    proposals, commit_M = alone(strategy, asked, logits_MV)
    assert torch.equal(proposals.token_M, plain.token_M), "the tokens are chosen as ever"
    is_end_M = torch.isin(plain.token_M, torch.tensor((END, TURN_END)))
    assert is_end_M.any()
    assert torch.equal(is_last(proposals.log_odds_M), is_end_M)
    for b in range(4):
        of_b = asked.sequence_M == b
        assert commit_M[of_b].any() or strategy.may_commit_nothing
        left = of_b & ~is_end_M & ~commit_M
        if left.any():
            assert not commit_M[of_b & is_end_M].any(), "something else was left"
        elif not has_quota:
            assert not (commit_M & of_b & ~is_end_M).any() or not (commit_M & of_b & is_end_M).any()


@pytest.mark.parametrize("strategy", [Threshold(), Credit(), Klass(), Factor(factor=40.0)], ids=str)
def test_where_only_ends_are_left_one_commits(strategy: DecodingStrategy) -> None:
    asked, logits_MV = with_ends(strategy, 2)
    _, commit_M = alone(replace(strategy, suppress_eos="confidence"), asked, logits_MV)
    last_M = asked.sequence_M == 3
    assert commit_M[last_M].tolist() == [True] + [False] * 5, "ties go to the earlier position"


def test_a_quota_takes_ends_once_nothing_else_is_left() -> None:
    asked, _ = ragged([5])
    logits_MV = certain([0.1, 0.2, 0.3, 0.01, 0.02])
    logits_MV[:3] = logits_MV[:3].roll(1, dims=1)  # the likeliest word is 4, at the others EOS
    logits_MV[:3, MASK], logits_MV[:3, 0] = -torch.inf, logits_MV[0, 1]
    strategy = Fixed(iterations_per_block=1, suppress_eos="confidence")
    assert alone(strategy, asked, logits_MV)[1].all()
    strategy = Fixed(iterations_per_block=3, suppress_eos="confidence")
    assert alone(strategy, asked, logits_MV)[1].tolist() == [True, True, False, False, False]


def test_an_entropy_bound_does_not_take_an_end_along() -> None:
    asked, _ = ragged([3])
    logits_MV = certain([0.001, 0.002, 0.003])
    logits_MV[0] = logits_MV[0].roll(1)
    logits_MV[0, MASK], logits_MV[0, 0] = -torch.inf, logits_MV[0, 1]
    for bound, expected in ((0.35, [True, False, False]), (1e9, [True, False, False])):
        strategy = EntropyBound(bound=bound, suppress_eos="confidence")
        assert alone(strategy, asked, logits_MV)[1].tolist() == expected


def test_no_token_is_edited_into_an_end() -> None:
    asked, _ = ragged([3])
    asked = asked._replace(
        token_M=torch.tensor([7, END, MASK]),
        is_masked_M=torch.tensor([False, False, True]),
    )
    logits_MV = certain([0.1, 0.1, 0.1])
    strategy = Edit(edit_threshold=0.0)
    assert alone(strategy, asked, logits_MV)[1].tolist() == [True, False, True]
    strategy = Edit(edit_threshold=0.0, suppress_eos="confidence")
    assert alone(strategy, asked, logits_MV)[1].tolist() == [False, False, True]


def test_confidences_that_do_not_count_the_ends() -> None:
    """The softmax without the ends, at the words that were chosen with them: also where an end has
    nearly all of the probability that is left, and for drawn words."""
    asked, logits_MV = with_ends(Threshold(), 3)
    logits_MV[5, END] = logits_MV[5, :END].max() - 1e-4
    logits_MV[6] = certain([1e-9])[0].roll(1)
    logits_MV[6, MASK], logits_MV[6, 0] = -torch.inf, logits_MV[6, 1]
    logits_MV[6, TURN_END] = logits_MV[6].max() - 0.5
    logits_MV[6, END] = logits_MV[6].max() - 0.7
    strategy = Threshold(suppress_eos="softmax")
    proposals, _ = alone(strategy, asked, logits_MV)
    rest_MV = logits_MV.double().clone()
    rest_MV[:, [END, TURN_END]] = -torch.inf
    token_M1 = proposals.token_M[:, None]
    z_M = rest_MV.gather(1, token_M1)[:, 0]
    expected_M = z_M - rest_MV.scatter(1, token_M1, -torch.inf).logsumexp(-1)
    kept_M = ~torch.isin(proposals.token_M, torch.tensor([END, TURN_END]))
    assert kept_M[6]
    assert kept_M.sum() > 5
    confidence_M = rest_MV.softmax(-1).gather(1, token_M1)[kept_M, 0].float()
    torch.testing.assert_close(proposals.confidence_M[kept_M], confidence_M)
    log_odds_M = expected_M[kept_M].float()
    torch.testing.assert_close(proposals.log_odds_M[kept_M], log_odds_M, rtol=1e-5, atol=1e-5)


def test_the_logits_are_as_before_once_confidences_are_computed() -> None:
    asked, logits_MV = with_ends(Threshold(), 3)
    logits = Logits(logits_MV.clone(), VOCAB, uncounted=(TURN_END, 5))
    before = Logits(logits_MV.clone(), VOCAB)
    propose(asked, logits)
    propose(asked, before)
    assert torch.equal(logits.local_MU, logits_MV)
    torch.testing.assert_close(logits.entropy(), before.entropy(), rtol=0, atol=0)


@pytest.mark.parametrize("form", ["logits", "confidence", "softmax"])
@pytest.mark.parametrize("strategy", [*STRATEGIES[:8], STRATEGIES[9]], ids=str)
def test_ranks_and_kernels_decide_as_a_single_rank_in_torch(
    strategy: DecodingStrategy, form: str
) -> None:
    strategy = replace(strategy, suppress_eos=form)
    asked, logits_MV = with_ends(strategy, 4)
    expected, expected_M = alone(strategy, asked, logits_MV)
    found = on_ranks(3, decide(strategy, asked, logits_MV))
    triton = decide(strategy, asked, logits_MV, TritonReduction(batch_invariant=True))
    for proposals, commit_M in (*found, triton(TensorParallel())):
        assert torch.equal(proposals.token_M, expected.token_M)
        assert torch.equal(commit_M, expected_M)
        torch.testing.assert_close(proposals[1:4], expected[1:4], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(found[0][0][:4], found[2][0][:4], strict=True))
    if form == "logits":
        assert not (expected.token_M == END).any()
        assert (expected.token_M == TURN_END).any()


@pytest.mark.parametrize("form", ["logits", "confidence", "softmax"])
def test_a_logit_that_is_not_finite_still_shows(form: str) -> None:
    asked, logits_MV = with_ends(Threshold(), 0)
    logits_MV[3, TURN_END], logits_MV[5, 8] = torch.nan, torch.nan
    proposals, _ = alone(Threshold(suppress_eos=form), asked, logits_MV)
    assert proposals.confidence_M.isnan().nonzero()[:, 0].tolist() == [3, 5]


@pytest.mark.parametrize("form", ["logits", "confidence", "softmax"])
def test_graphs_hold_ends_back_too(form: str) -> None:
    model = MODELS["bidirectional"]
    config = model.config
    model.config = replace(config, eos_token_ids=(*config.eos_token_ids, 7))
    try:
        decoding = {"name": "threshold", "suppress_eos": form}
        requests = requests_of_both_kinds(4)
        eager, engine, capture = engines(model, Combination({"name": "dual"}, decoding))
        assert_same(results_of(engine, requests), results_of(eager, requests), "graphs")
        assert capture.num_replays
    finally:
        model.config = config


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"decoding.suppress_eos='eos': give one of logits, soft"):
        Combination({"name": "dual"}, {"name": "threshold", "suppress_eos": "eos"}).engine(
            MODELS["bidirectional"]
        )
