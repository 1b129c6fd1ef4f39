"""Logits divided among the ranks of a group give the same answers as the whole logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.decoding.logits import Logits
from engine.decoding.noise import Noise
from engine.parallel import ALONE, TensorParallel
from engine.soft import SoftIteration
from tests.engine.thread_ranks import ThreadRank, on_ranks

SHAPES = [(1, 97), (2, 97), (3, 97), (4, 97), (3, 8), (4, 9)]
"""(ranks, words). 97 or 9 words in 4 runs: the runs differ in length."""
COUNT = 40
PLACES = torch.arange(COUNT)


def run_of(logits_MV: Tensor, parallel: TensorParallel) -> Logits:
    words = parallel.share(logits_MV.shape[1])
    local_MU = logits_MV[:, words.start : words.stop].clone()
    return Logits(local_MU, logits_MV.shape[1], parallel)


def agreed(size: int, logits_MV: Tensor, ask: Callable[[Logits], Any]) -> Any:
    """The answer of every rank, a tensor or a tuple of tensors; they must agree bit for bit."""
    answers = on_ranks(size, lambda rank: ask(run_of(logits_MV, rank)))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=0, atol=0, equal_nan=True)
    return answers[0]


def random_logits(num_words: int, seed: int = 0) -> Tensor:
    """From nearly uniform to nearly certain, with the likeliest word anywhere. The mask token is
    the middle word."""
    torch.manual_seed(seed)
    logits_MV = torch.randn(COUNT, num_words) * torch.linspace(0.1, 6, COUNT)[:, None]
    logits_MV[PLACES, torch.randint(num_words, (COUNT,))] += torch.linspace(0, 40, COUNT)
    logits_MV[:, num_words // 2] = -torch.inf
    return logits_MV


def tied_logits(num_words: int) -> Tensor:
    """Logits of only five values, so that many words tie."""
    return random_logits(num_words).clamp(-2, 2).round()


@pytest.mark.parametrize("make", [random_logits, tied_logits])
@pytest.mark.parametrize(("size", "num_words"), SHAPES)
def test_the_best_word_is_the_lowest_of_the_highest_scores(
    size: int, num_words: int, make: Callable[[int], Tensor]
) -> None:
    logits_MV = make(num_words)
    best = agreed(size, logits_MV, lambda logits: logits.best(None))
    word_M1 = logits_MV.argmax(-1, keepdim=True)
    assert torch.equal(best.word_M, word_M1[:, 0])
    assert torch.equal(best.logit_M, logits_MV.max(-1).values)
    others_M = logits_MV.double().scatter(1, word_M1, -torch.inf).logsumexp(-1)
    torch.testing.assert_close(best.others_M, others_M.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("size", "num_words"), SHAPES)
def test_the_best_word_follows_the_noise_but_reports_its_logit(size: int, num_words: int) -> None:
    logits_MV = random_logits(num_words)
    noise = Noise(torch.randint(2**62, (COUNT,)), torch.linspace(0, 30, COUNT))
    best = agreed(size, logits_MV, lambda logits: logits.best(noise))
    scores_MV = logits_MV + noise.temperature_M[:, None] * noise.gumbel(range(num_words))
    word_M1 = scores_MV.argmax(-1, keepdim=True)
    assert torch.equal(best.word_M, word_M1[:, 0])
    assert (best.word_M != logits_MV.argmax(-1)).any()
    assert torch.equal(best.logit_M, logits_MV.gather(1, word_M1)[:, 0])
    others_M = logits_MV.scatter(1, word_M1, -torch.inf).logsumexp(-1)
    torch.testing.assert_close(best.others_M, others_M, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [random_logits, tied_logits])
@pytest.mark.parametrize(("size", "num_words"), SHAPES)
def test_entropy_and_margin_equal_their_definitions(
    size: int, num_words: int, make: Callable[[int], Tensor]
) -> None:
    logits_MV = make(num_words)
    p_MV = logits_MV.double().softmax(-1)
    entropy_M = -(p_MV * p_MV.clamp(min=1e-300).log()).sum(-1)
    torch.testing.assert_close(
        agreed(size, logits_MV, Logits.entropy), entropy_M.float(), rtol=1e-5, atol=1e-14
    )
    two, best_M2 = p_MV.topk(2)
    others_M = p_MV.scatter(1, best_M2[:, :1], 0).sum(-1)
    margin_M = -(others_M + two[:, 1]).log()
    torch.testing.assert_close(
        agreed(size, logits_MV, Logits.margin), margin_M.float(), rtol=1e-5, atol=5e-6
    )


@pytest.mark.parametrize(("size", "num_words"), SHAPES)
def test_at_and_plus_reach_words_on_every_rank(size: int, num_words: int) -> None:
    logits_MV = random_logits(num_words)
    words_MW = torch.randint(num_words, (COUNT, 6))
    words_MW[:, :2] = torch.tensor([0, num_words - 1])
    at_MW = agreed(size, logits_MV, lambda logits: logits.at(words_MW))
    assert torch.equal(at_MW, logits_MV.gather(1, words_MW))
    values_MW = torch.rand(COUNT, 6)
    every_MW = torch.arange(num_words).expand(COUNT, -1)
    raised_MV = agreed(
        size, logits_MV, lambda logits: logits.plus(words_MW, values_MW).at(every_MW)
    )
    torch.testing.assert_close(raised_MV, logits_MV.scatter_add(1, words_MW, values_MW))
    assert torch.equal(agreed(size, logits_MV, lambda logits: logits.at(every_MW)), logits_MV)


@pytest.mark.parametrize("make", [random_logits, tied_logits])
@pytest.mark.parametrize(("size", "num_words"), SHAPES)
def test_top_k_finds_the_likeliest_words_of_all_ranks(
    size: int, num_words: int, make: Callable[[int], Tensor]
) -> None:
    logits_MV = make(num_words)
    expected = logits_MV.sort(dim=-1, descending=True, stable=True)
    for count in {1, 2, 5, num_words // 2, num_words}:
        top = agreed(size, logits_MV, lambda logits, count=count: logits.top_k(count))
        assert torch.equal(top.logit_MW, expected.values[:, :count])
        assert torch.equal(logits_MV.gather(1, top.word_MW), top.logit_MW)
        assert all(len(set(words)) == count for words in top.word_MW.tolist())
        if make is random_logits or (count == num_words and size > 1):
            assert torch.equal(top.word_MW, expected.indices[:, :count])


@pytest.mark.parametrize("top_k", [None, 3, 40])
@pytest.mark.parametrize(("size", "num_words"), SHAPES)
def test_soft_iteration_expects_the_same_embedding(
    size: int, num_words: int, top_k: int | None
) -> None:
    logits_MV, soft = random_logits(num_words), SoftIteration(temperature=1.3, top_k=top_k)
    table_VD = torch.randn(num_words, 12)
    ours_MD = agreed(size, logits_MV, lambda logits: soft.expected(logits, table_VD))
    least_M1 = logits_MV.topk(min(top_k or num_words, num_words)).values[:, -1:]
    kept_MV = logits_MV.where(logits_MV >= least_M1, -torch.inf)
    torch.testing.assert_close(
        ours_MD, (kept_MV / 1.3).softmax(-1) @ table_VD, rtol=1e-5, atol=1e-5
    )
    in_bfloat16_MD = agreed(size, logits_MV, lambda x: soft.expected(x, table_VD.bfloat16()))
    torch.testing.assert_close(in_bfloat16_MD.float(), ours_MD, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("size", "num_words"), SHAPES)
def test_logits_that_are_not_finite_show_on_every_rank(
    size: int, num_words: int, value: float
) -> None:
    """Row w has the value at word w, so that each rank has it in some row."""
    logits_MV = random_logits(num_words)
    rows = torch.arange(min(num_words, COUNT - 1))
    logits_MV[rows, rows] = value
    broken_M = (logits_MV.isnan() | logits_MV.isposinf()).any(-1)
    best = agreed(size, logits_MV, lambda logits: logits.best(None))
    assert torch.equal(~(best.logit_M - best.others_M).isfinite(), broken_M)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda logits: logits.best(None), 1),
        (Logits.entropy, 1),
        (Logits.margin, 2),
        (lambda logits: logits.at(torch.zeros((COUNT, 3), dtype=torch.int64)), 1),
        (lambda logits: logits.plus(torch.zeros((COUNT, 3)).long(), torch.ones(COUNT, 3)), 0),
        (lambda logits: logits.top_k(50), 1),
        (lambda logits: logits.expected(torch.ones(97, 4), 1.0), 2),
    ],
)
def test_an_answer_takes_few_collectives(ask: Callable[[Logits], Any], expected: int) -> None:
    def count(rank: ThreadRank) -> int:
        ask(run_of(random_logits(97), rank))
        return rank.num_collectives

    assert on_ranks(3, count) == [expected] * 3


def test_logits_of_the_wrong_words_fail_an_assertion() -> None:
    with pytest.raises(AssertionError, match="its own words"):
        Logits(torch.zeros(2, 4), 5, ALONE)
    with pytest.raises(AssertionError, match="besides the mask"):
        on_ranks(2, lambda rank: run_of(torch.zeros(2, 3), rank))
