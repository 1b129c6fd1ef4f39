"""The reduction of the logits against Logits and the noise of engine/decoding."""

import math

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.decoding import noise as plain
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions
from engine.kernels.common import power_of_two
from engine.kernels.head import Noise, Words, reduce, reduce_reference
from engine.kernels.head_kernels import gumbel
from tests.kernels.places import Place, everywhere

WRAP = 2**64


def mixed(x: int) -> int:
    """splitmix64 in Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) % WRAP
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WRAP
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WRAP
    return x ^ (x >> 31)


def key_of(seed: int, forward: int, position: int) -> int:
    key = mixed(mixed(mixed(seed % WRAP) ^ forward) ^ position)
    return key - WRAP if key >= WRAP // 2 else key


def asked_of(M: int, temperatures: list[float]) -> AskedPositions:
    """Every position of a sequence of its own."""
    each = torch.arange(M)
    return AskedPositions(
        sequence_M=each,
        position_M=each * 17 + 3,
        offset_M=torch.zeros(M, dtype=torch.int64),
        num_masked_at_block_start_B=torch.full((M,), 8),
        num_iterations_in_block_B=torch.zeros(M, dtype=torch.int64),
        num_iterations_B=each % 5,
        seed_B=torch.randint(-(2**63), 2**63 - 1, (M,)),
        temperature_B=torch.tensor(temperatures),
        any_sampled=True,
        longest=1,
    )


def noise_of(place: Place, asked: AskedPositions, first_word: int = 0) -> Noise:
    values = zip(
        asked.seed_B.tolist(), asked.num_iterations_B.tolist(), asked.position_M.tolist(),
        strict=True,
    )  # fmt: skip
    return Noise(
        key_M=place.ints([key_of(*value) for value in values], torch.int64),
        temperature_M=asked.temperature_B.to(place.device),
        first_word=first_word,
    )


def plain_noise_of(asked: AskedPositions) -> plain.Noise:
    """The engine's own, in plain torch."""
    found = plain.noise_of(asked)
    assert found is not None
    return found


def words_of(logits: Tensor) -> Logits:
    """The engine's own, in plain torch."""
    return Logits(logits.float(), logits.shape[1])


def logits_of(place: Place, M: int, V: int) -> Tensor:
    """From flat to nearly certain; the last word but one is never predicted."""
    sharpness = torch.linspace(0.1, 12, M)[:, None].to(place.device)
    logits = place.normal(M, V, dtype=torch.float32) * sharpness
    logits[:, V - 2] = -torch.inf
    return logits.to(place.dtype)


def assert_words(got: Words, expected: Words) -> None:
    """Words equal, sums near."""
    assert torch.equal(got.word_M, expected.word_M)
    for name in ("logit_M", "score_M", "top_M"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
    for name in ("others_M", "entropy_M", "rest_M", "weighted_M"):
        mine, its = getattr(got, name), getattr(expected, name)
        torch.testing.assert_close(
            mine, its, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@everywhere
@pytest.mark.parametrize(("M", "V"), [(1, 97), (33, 97), (3, 20001), (2, 8193), (5, 3)])
def test_greedy(place: Place, M: int, V: int) -> None:
    logits = logits_of(place, M, V)
    got = reduce(logits)
    assert_words(got, reduce_reference(logits))
    today = words_of(logits)
    best = today.best(None)
    assert torch.equal(got.word_M.long(), best.word_M)
    assert torch.equal(got.logit_M, best.logit_M)
    torch.testing.assert_close(got.others_M, best.others_M, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.entropy_M, today.entropy(), rtol=1e-4, atol=1e-6)


@everywhere
def test_log_odds_and_entropy_are_precise_where_one_word_is_nearly_certain(place: Place) -> None:
    logits = torch.zeros(1, 9000, dtype=place.dtype, device=place.device)
    logits[0, 8500] = 32
    got = reduce(logits)
    others = math.log(8999)
    assert got.others_M.item() == pytest.approx(others, rel=1e-6)
    p = 8999 * math.exp(-32)
    assert got.entropy_M.item() == pytest.approx(p + p * 32, rel=1e-4)


@everywhere
def test_ties_go_to_the_lower_word(place: Place) -> None:
    logits = torch.zeros(2, 20000, dtype=place.dtype, device=place.device)
    logits[0, [19999, 8192, 8191]] = 3
    got = reduce(logits)
    assert got.word_M.tolist() == [8191, 0]
    assert got.others_M[0].item() == pytest.approx(math.log(2 * math.exp(3) + 19997), rel=1e-6)


@everywhere
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("is_sampled", [False, True])
def test_a_logit_that_is_not_finite_shows(place: Place, value: float, is_sampled: bool) -> None:
    logits = logits_of(place, 4, 20001)
    temperature = [0.7] * 4 if is_sampled else [0.0] * 4
    noise = noise_of(place, asked_of(4, temperature)) if is_sampled else None
    expected = reduce(logits, noise)
    logits[0, 5], logits[1, 20000], logits[2] = value, value, value
    got = reduce(logits, noise)
    for name in ("logit_M", "others_M", "score_M", "entropy_M", "rest_M", "weighted_M"):
        assert getattr(got, name)[:3].isnan().all(), name
    for mine, its in zip(got, expected, strict=True):
        assert torch.equal(mine[3], its[3])
    assert ((got.word_M >= 0) & (got.word_M < 20001)).all()


@triton.jit
def noise_kernel(key_ptr, out_ptr, first_word, V: tl.constexpr, BLOCK: tl.constexpr):
    """The noise of all words of one position."""
    m = tl.program_id(0)
    words = tl.arange(0, BLOCK)
    noise = gumbel(tl.load(key_ptr + m), words.to(tl.int64) + first_word)
    tl.store(out_ptr + m * V + words, noise, mask=words < V)


@everywhere
def test_noise_is_that_of_plain_torch(place: Place) -> None:
    """Bit for bit, for words of a second rank too."""
    asked = asked_of(5, [1.0] * 5)
    expected = plain_noise_of(asked)
    for words in (range(5000), range(78592, 80000)):
        noise = noise_of(place, asked, words.start)
        got = torch.empty(5, len(words), device=place.device)
        noise_kernel[(5, 1)](
            noise.key_M, got, words.start, V=len(words), BLOCK=power_of_two(len(words))
        )
        assert torch.equal(got.cpu(), expected.gumbel(words))


@everywhere
@pytest.mark.parametrize("V", [97, 9001])
def test_sampled(place: Place, V: int) -> None:
    """Positions that are sampled and that are not; a high temperature, so that another word than
    the largest logit's wins."""
    temperatures = [0.0, 0.3, 1.0, 4.0, 0.0, 20.0, 1.0]
    logits = logits_of(place, 7, V)
    asked = asked_of(7, temperatures)
    noise = noise_of(place, asked)
    got = reduce(logits, noise)
    today = words_of(logits)
    drawn = plain_noise_of(asked)
    scores = today.local_MU + drawn.temperature_M[:, None].to(place.device) * drawn.gumbel(
        range(V)
    ).to(place.device)
    best = today.best(plain.Noise(*(x.to(place.device) for x in drawn)))
    assert torch.equal(got.word_M.long(), best.word_M)
    assert torch.equal(got.logit_M, best.logit_M)
    assert torch.equal(got.score_M, scores.gather(1, best.word_M[:, None])[:, 0])
    torch.testing.assert_close(got.others_M, best.others_M, rtol=1e-4, atol=1e-5)
    assert (got.word_M != reduce(logits).word_M).any()
    # The noise changes nothing of a greedy neighbour.
    for mine, its in zip(got, reduce(logits), strict=True):
        assert torch.equal(mine[[0, 4]], its[[0, 4]])


@everywhere
def test_ranks_merge_to_the_whole(place: Place) -> None:
    """Two ranks' words, merged as Logits merges them, with noise."""
    logits = logits_of(place, 6, 97)
    asked = asked_of(6, [0.0, 0.5, 1.0, 3.0, 0.0, 9.0])
    whole = reduce(logits, noise_of(place, asked))
    ranks = [
        reduce(logits[:, :40].contiguous(), noise_of(place, asked)),
        reduce(logits[:, 40:].contiguous(), noise_of(place, asked, 40)),
    ]
    score, logit, others, top, rest, weighted = (
        torch.stack([getattr(rank, name) for rank in ranks]).double()
        for name in ("score_M", "logit_M", "others_M", "top_M", "rest_M", "weighted_M")
    )
    best = score.argmax(0, keepdim=True)
    word = torch.stack([ranks[0].word_M, ranks[1].word_M + 40]).gather(0, best)[0]
    assert torch.equal(word, whole.word_M)
    merged = torch.cat((others, logit.scatter(0, best, -torch.inf))).logsumexp(0)
    torch.testing.assert_close(merged.float(), whole.others_M, rtol=1e-4, atol=1e-5)
    highest = top.argmax(0, keepdim=True)
    d = top - top.gather(0, highest)
    full = rest + torch.ones_like(d).scatter(0, highest, 0)
    rest, weighted = (d.exp() * full).sum(0), (d.exp() * (weighted + d * full)).sum(0)
    entropy = torch.log1p(rest) - weighted / (1 + rest)
    torch.testing.assert_close(entropy.float(), whole.entropy_M, rtol=1e-4, atol=1e-6)


@everywhere
def test_no_position(place: Place) -> None:
    got = reduce(place.normal(0, 97), noise_of(place, asked_of(0, [])))
    assert all(x.shape == (0,) for x in got)
