"""Every strategy, and the engine, when each rank of a group has the logits of a run of words."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from engine.decoding import DecodingStrategy
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals
from engine.decoding.threshold import Threshold
from engine.model.transformer import Transformer
from engine.parallel import TensorParallel
from tests.engine.ragged import STRATEGIES, VOCAB, ragged
from tests.engine.thread_ranks import ThreadRank, on_ranks
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import VOCAB_SIZE, mixed_requests, tiny_model

Decided = tuple[Proposals, Tensor]


def decided(
    strategy: DecodingStrategy, asked: AskedPositions, logits_MV: Tensor
) -> Callable[[TensorParallel], Decided]:
    """A function that computes what a rank proposes and commits."""

    def decide(rank: TensorParallel) -> Decided:
        words = rank.share(VOCAB)
        local_MU = logits_MV[:, words.start : words.stop].clone()
        proposals = strategy.propose(asked, Logits(local_MU, VOCAB, rank))
        return proposals, strategy.choose(asked, proposals)

    return decide


def assert_decided_alike(ranks: list[Decided], alone: Decided) -> None:
    """All ranks must agree bit for bit, and with a single rank up to the rounding of sums."""
    expected, expected_commit_M = alone
    for proposals, commit_M in ranks:
        torch.testing.assert_close(
            (*proposals[:4], dict(proposals.state)),
            (*ranks[0][0][:4], dict(ranks[0][0].state)),
            rtol=0,
            atol=0,
            equal_nan=True,
        )
        assert torch.equal(proposals.token_M, expected.token_M)
        assert torch.equal(commit_M, expected_commit_M)
        torch.testing.assert_close(
            (*proposals[1:4], dict(proposals.state)),
            (*expected[1:4], dict(expected.state)),
            rtol=1e-5,
            atol=1e-5,
            equal_nan=True,
        )


def batch_for(strategy: DecodingStrategy, seed: int) -> tuple[AskedPositions, Tensor]:
    """Greedy and sampled sequences. If the strategy edits, some positions are committed already."""
    temperatures = [0.0, 0.8, 1.5, 0.0]
    asked, logits_MV = ragged([9, 1, 16, 6], temperatures, seed=seed, strategy=strategy)
    if strategy.edits:
        committed_M = asked.position_M % 3 == 0
        asked = asked._replace(
            token_M=(asked.position_M % VOCAB).where(committed_M, asked.token_M),
            is_masked_M=~committed_M,
        )
    return asked, logits_MV


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_ranks_decide_as_a_single_rank(strategy: DecodingStrategy, size: int) -> None:
    for seed in range(3):
        asked, logits_MV = batch_for(strategy, seed)
        decide = decided(strategy, asked, logits_MV)
        assert_decided_alike(on_ranks(size, decide), decide(TensorParallel()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_the_confidence_is_nan_on_every_rank_where_a_logit_is_not_finite(
    strategy: DecodingStrategy, value: float
) -> None:
    asked, logits_MV = batch_for(strategy, seed=0)
    logits_MV[3, 2], logits_MV[5, VOCAB - 2] = value, value
    broken_M = torch.zeros(len(logits_MV), dtype=torch.bool).index_fill(
        0, torch.tensor([3, 5]), True
    )
    for proposals, _ in on_ranks(3, decided(strategy, asked, logits_MV)):
        assert torch.equal(proposals.confidence_M.isnan(), broken_M)


def test_a_proposal_takes_one_collective() -> None:
    asked, logits_MV = batch_for(Threshold(), seed=0)

    def count(rank: ThreadRank) -> int:
        decided(Threshold(), asked, logits_MV)(rank)
        return rank.num_collectives

    assert on_ranks(3, count) == [1, 1, 1]


def test_ties_go_to_the_lowest_word_on_whichever_rank_it_is() -> None:
    asked, logits_MV = ragged([23])
    logits_MV[:] = 0.0
    for row in range(VOCAB):
        logits_MV[row, row:] = 5.0
    for proposals in on_ranks(4, lambda rank: decided(Threshold(), asked, logits_MV)(rank)[0]):
        assert torch.equal(proposals.token_M, torch.arange(VOCAB))


class LocalWords(Transformer):
    """The model `whole`, which computes only the logits of this rank's words."""

    def __init__(self, whole: Transformer, parallel: TensorParallel) -> None:
        super().__init__(whole.config)
        self.load_state_dict(whole.state_dict())
        self.eval().requires_grad_(False)
        self.parallel = parallel

    @property
    def num_kv_heads(self) -> int:
        return self.config.num_kv_heads

    def logits(self, hidden_MD: Tensor) -> Tensor:
        words = self.parallel.share(self.config.vocab_size)
        return super().logits(hidden_MD)[:, words.start : words.stop].contiguous()


@pytest.mark.parametrize(
    ("decoding", "soft"),
    [
        ("threshold", None),
        ("credit", {}),
        ("threshold", {"scope": "canvas"}),
        ("klass", {"top_k": 60}),
        ("entropy_bound", None),
    ],
)
def test_the_engine_generates_the_same_tokens(decoding: str, soft: dict | None) -> None:
    """`logits_bytes` is small, so that the logits are computed in many pieces."""
    combination = Combination({"name": "dual"}, {"name": decoding}, soft)
    whole = tiny_model()
    requests = mixed_requests(4) + [
        replace(request, request_id=-1 - i, temperature=0.7)
        for i, request in enumerate(mixed_requests(4, seed=8))
    ]
    settings = {"block_length": 8, "logits_bytes": VOCAB_SIZE * 44 * 4}
    expected = combination.run(whole, requests, **settings)
    settings["tensor_parallel"] = 4
    for results in on_ranks(
        4, lambda rank: combination.run(LocalWords(whole, rank), requests, **settings)
    ):
        assert_same(results, expected, decoding)


def decide_in_a_group(rank: int, size: int, folder: str) -> None:
    """One process of a group of `size`; saves what it decided."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=size)
    group = TensorParallel(dist.group.WORLD)
    found = []
    for strategy in STRATEGIES:
        proposals, commit_M = decided(strategy, *batch_for(strategy, seed=0))(group)
        found.append((tuple(proposals[:4]), dict(proposals.state), commit_M))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_decide_as_a_single_rank(tmp_path: Path) -> None:
    size = 3
    mp.spawn(decide_in_a_group, (size, str(tmp_path)), nprocs=size)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(size)]
    for i, strategy in enumerate(STRATEGIES):
        alone = decided(strategy, *batch_for(strategy, seed=0))(TensorParallel())
        ranks = [
            (Proposals(*proposed, state=state), commit_M)
            for proposed, state, commit_M in (of_rank[i] for of_rank in found)
        ]
        assert_decided_alike(ranks, alone)
