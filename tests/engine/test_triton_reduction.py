"""The fused reduction of logits answers as plain torch does, with less memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.decoding.logits import Logits
from engine.decoding.noise import Noise
from engine.decoding.reduction import TORCH, Reduction
from engine.decoding.triton_reduction import FIXED_ROWS, TritonReduction
from engine.kernel_choice import kernels_for
from engine.model.transformer import Transformer
from tests.engine.live_bytes import LiveBytes
from tests.engine.ragged import ragged
from tests.engine.thread_ranks import ThreadRank
from tests.tiny import tiny_model

TRITON = TritonReduction(batch_invariant=True)
COUNT, WORDS = 12, 97


def logits_of(kind: str) -> Tensor:
    torch.manual_seed(0)
    logits_MV = torch.randn(COUNT, WORDS) * torch.linspace(0.1, 9, COUNT)[:, None]
    if kind == "tied":
        logits_MV = logits_MV.clamp(-2, 2).round()
    if kind == "broken":
        logits_MV[1, 5], logits_MV[2, 40], logits_MV[3, 41] = torch.nan, torch.inf, torch.nan
    logits_MV[:, WORDS // 2] = -torch.inf
    return logits_MV


def share(logits_MV: Tensor, size: int, rank: int, reduction: Reduction) -> Logits:
    """One rank's logits; it is never asked what needs the others."""
    parallel = ThreadRank(rank, [torch.empty(0)] * size, None)  # type: ignore[arg-type]
    words = parallel.share(WORDS)
    local_MU = logits_MV[:, words.start : words.stop].contiguous()
    return Logits(local_MU, WORDS, parallel, reduction)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(("size", "rank"), [(1, 0), (3, 1)])
@pytest.mark.parametrize("kind", ["plain", "tied", "broken"])
def test_what_a_rank_reduces_equals_plain_torch(
    kind: str, size: int, rank: int, sampled: bool
) -> None:
    noise = None
    if sampled:
        noise = Noise(torch.randint(2**62, (COUNT,)), torch.linspace(0, 8, COUNT).relu())
    plain, fused = (share(logits_of(kind), size, rank, kind_of) for kind_of in (TORCH, TRITON))
    expected = TORCH.best(plain.local_MU, noise, plain.words)
    found = TRITON.best(fused.local_MU, noise, fused.words)
    local_MU = plain.local_MU
    is_broken_M = (local_MU.isnan() | local_MU.isposinf()).any(-1)
    assert torch.equal(found.place_M[~is_broken_M], expected.place_M[~is_broken_M])
    for name in ("score_M", "logit_M", "others_M"):
        its, theirs = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(its[~is_broken_M], theirs[~is_broken_M], rtol=1e-6, atol=1e-5)
    assert torch.equal((found.logit_M - found.others_M).isnan(), is_broken_M)
    assert found.score_M[is_broken_M].isnan().all()
    parts = found.entropy
    assert parts is not None
    for its, theirs in zip(parts, TORCH.entropy(local_MU), strict=True):
        torch.testing.assert_close(its[~is_broken_M], theirs[~is_broken_M], rtol=1e-5, atol=1e-6)


def test_entropy_takes_no_second_pass_and_needs_no_first() -> None:
    logits_MV, passes = logits_of("plain"), []

    class Counting(TritonReduction):
        def entropy(self, local_MU: Tensor) -> Any:
            passes.append(1)
            return super().entropy(local_MU)

    expected = Logits(logits_MV, WORDS).entropy()
    logits = Logits(logits_MV, WORDS, reduction=Counting(True))
    torch.testing.assert_close(logits.entropy(), expected, rtol=1e-5, atol=1e-6)
    assert passes == [1]
    logits.best(None)
    torch.testing.assert_close(logits.entropy(), expected, rtol=1e-5, atol=1e-6)
    assert passes == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 5, WORDS])
def test_top_k_gives_ties_to_the_lower_word(count: int, dtype: torch.dtype) -> None:
    logits_MV = logits_of("tied").to(dtype)
    logits_MV[0, ::2] = -0.0
    logits_MV[1] *= 1e4
    expected = logits_MV.sort(dim=-1, descending=True, stable=True)
    logit_MW, place_MW = TRITON.top_k(logits_MV, count)
    assert logit_MW.dtype == dtype
    assert torch.equal(logit_MW, expected.values[:, :count])
    assert torch.equal(place_MW, expected.indices[:, :count])


@pytest.mark.parametrize("num_rows", [1, FIXED_ROWS, FIXED_ROWS + 1, 3 * FIXED_ROWS])
def test_means_do_not_depend_on_the_number_of_rows(num_rows: int) -> None:
    torch.manual_seed(0)
    weights_MU, rows_UD = torch.rand(4 * FIXED_ROWS, 300), torch.randn(300, 24)
    whole_MD = TRITON.mean_rows(weights_MU, rows_UD)
    torch.testing.assert_close(whole_MD, TORCH.mean_rows(weights_MU, rows_UD))
    assert torch.equal(TRITON.mean_rows(weights_MU[:num_rows], rows_UD), whole_MD[:num_rows])
    rows_MWD = torch.randn(4 * FIXED_ROWS, 7, 24)
    each = weights_MU[:, :7], rows_MWD
    whole_MD = TRITON.mean_rows_of_each(*each)
    torch.testing.assert_close(whole_MD, TORCH.mean_rows_of_each(*each))
    few_MD = TRITON.mean_rows_of_each(*(x[:num_rows] for x in each))
    assert torch.equal(few_MD, whole_MD[:num_rows])
    free = TritonReduction(batch_invariant=False)
    torch.testing.assert_close(free.mean_rows_of_each(*each), whole_MD)


def strategies() -> list[DecodingStrategy]:
    return [*(make() for make in DECODERS.values()), DECODERS["fixed"](order="margin")]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("strategy", strategies(), ids=str)
def test_proposals_stay_within_the_bytes_that_a_piece_of_logits_is_planned_with(
    strategy: DecodingStrategy, sampled: bool
) -> None:
    """Counted over tensors of the vocabulary's size; what a position keeps of it comes on top."""
    num_words, count = 8192, 4
    model = model_of(num_words)
    kernels = kernels_for(model, EngineConfig(kernels="triton"))
    temperatures = [0.7] if sampled else None
    asked, _ = ragged([count], temperatures, strategy=strategy)
    logits_MV = torch.randn(count, num_words)
    per_position = sum(x.nbytes for x in asked.state.values()) * 4 + count * 512
    with LiveBytes() as live:
        logits = Logits(logits_MV.clone(), num_words, reduction=kernels.reduction)
        strategy.propose(asked, logits)
    planned = kernels.bytes_per_logit(sampled, strategy.reads_whole_logits)
    assert live.peak <= planned * count * num_words + per_position


def model_of(num_words: int) -> Transformer:
    return tiny_model(n_layers=1, vocab_size=num_words, embedding_size=num_words)


def test_soft_iteration_stays_within_them_too() -> None:
    num_words, count = 8192, 4
    kernels = kernels_for(model_of(num_words), EngineConfig(kernels="triton"))
    logits_MV, table_VD = torch.randn(count, num_words), torch.randn(num_words, 8)
    expected_MD = Logits(logits_MV, num_words).expected(table_VD, 0.7)
    with LiveBytes() as live:
        logits = Logits(logits_MV.clone(), num_words, reduction=kernels.reduction)
        found_MD = logits.expected(table_VD, 0.7)
    torch.testing.assert_close(found_MD, expected_MD)
    # Of few positions, those that fill the fixed rows are most.
    rows = max(count, FIXED_ROWS)
    assert live.peak <= kernels.bytes_per_logit(False, True) * rows * num_words
