"""Dream's own sampler: how many positions commit in each iteration, and which."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from engine.decoding.dream import Dream
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions
from tests.engine.ragged import VOCAB, ragged


def schedule(strategy: Dream, num_masked: list[int], seed: int = 0) -> list[list[int]]:
    """How many positions of each sequence commit in each iteration of a block, until all have."""
    counts = list(num_masked)
    commits: list[list[int]] = [[] for _ in counts]
    for i in range(1000):
        if not any(counts):
            return commits
        asked, logits_MV = ragged([max(n, 1) for n in counts], seed=seed + i)
        asked = asked._replace(
            num_masked_at_block_start_B=torch.tensor(num_masked),
            num_iterations_in_block_B=torch.full((len(counts),), i),
            longest=max(num_masked),
        )
        commit_M = strategy.choose(asked, strategy.propose(asked, Logits(logits_MV, VOCAB)))
        for b, left in enumerate(counts):
            if left:
                commits[b].append(int(commit_M[asked.sequence_M == b].sum()))
                counts[b] = left - commits[b][-1]
    raise AssertionError("a block does not end")


def theirs(num_masked: int, steps: int, eps: float) -> list[int]:
    """The commits of Dream's loop in each step, until no mask is left."""
    times, left, commits = torch.linspace(1, eps, steps + 1), num_masked, []
    for i in range(steps):
        share = 1 - times[i + 1] / times[i]
        commits.append(int(torch.tensor(float(left)) * share) if i < steps - 1 else left)
        left -= commits[-1]
        if not left:
            break
    return commits


def test_the_worked_examples() -> None:
    assert schedule(Dream(iterations_per_block=8), [32]) == [[3, 4, 4, 4, 4, 4, 4, 5]]
    expected = [[0, *[1] * 30, 2]]
    assert schedule(Dream(iterations_per_block=32), [32]) == expected
    assert schedule(Dream(), [32]) == expected
    assert schedule(Dream(), [1]) == [[1]]


@pytest.mark.parametrize("eps", [1e-3, 0.05, 1e-4])
@pytest.mark.parametrize("steps", [1, 2, 7, 31, 64, None])
def test_quotas_are_cut_as_in_dreams_code(steps: int | None, eps: float) -> None:
    counts = [1, 2, 3, 13, 29]
    ours = schedule(Dream(iterations_per_block=steps, eps=eps), counts)
    assert ours == [theirs(count, steps or count, eps) for count in counts]


@pytest.mark.parametrize("length", [64, 128, 255, 256, 512, 1024, 2048])
def test_the_grid_is_torchs_on_long_regions(length: int) -> None:
    """All quotas that a region of this length meets, on the grid as the strategy computes it."""
    for steps in (length, length // 2, length // 3):
        strategy, left, ours = Dream(iterations_per_block=steps), length, []
        for i in range(steps):
            asked, _ = ragged([1])
            asked = asked._replace(
                num_masked_at_block_start_B=torch.tensor([length]),
                num_iterations_in_block_B=torch.tensor([i]),
            )
            share_B, is_last_B = strategy._share(asked)
            ours.append(left if bool(is_last_B) else int((left * share_B).long()))
            left -= ours[-1]
            if not left:
                break
        assert ours == theirs(length, steps, 1e-3)


def first_iteration(strategy: Dream, asked: AskedPositions, logits_MV: Tensor) -> list[bool]:
    commit_M = strategy.choose(asked, strategy.propose(asked, Logits(logits_MV, VOCAB)))
    return commit_M.tolist()


def chances(strategy: Dream, num_draws: int) -> tuple[list[float], AskedPositions, Tensor]:
    """How often each of 5 positions commits in an iteration of quota 2 of 5, over all seeds."""
    asked, logits_MV = ragged([5], seed=3)
    asked = asked._replace(num_masked_at_block_start_B=torch.tensor([5]))
    counts: Counter[int] = Counter()
    for seed in range(num_draws):
        commits = first_iteration(strategy, asked._replace(seed_B=torch.tensor([seed])), logits_MV)
        counts.update(i for i, commit in enumerate(commits) if commit)
    return [counts[i] / num_draws for i in range(5)], asked, logits_MV


@pytest.mark.parametrize("order", ["confidence", "margin", "entropy"])
def test_positions_are_drawn_without_replacement(order: str) -> None:
    """With the chances of torch.multinomial on softmax(score / order_temperature)."""
    strategy = Dream(iterations_per_block=2, order=order, order_temperature=0.7, eps=1e-3)
    found, _, logits_MV = chances(strategy, 4000)
    p_MV = logits_MV.softmax(-1)
    best_M2 = p_MV.topk(2).values
    scores = {
        "confidence": best_M2[:, 0],
        "margin": best_M2[:, 0] - best_M2[:, 1],
        "entropy": (p_MV * p_MV.clamp(min=1e-12).log()).sum(-1),
    }
    weights_M = (scores[order] / 0.7).softmax(-1)
    torch.manual_seed(0)
    drawn = torch.multinomial(weights_M.expand(20000, 5), 2)
    expected = torch.bincount(drawn.flatten(), minlength=5) / 20000
    assert sum(found) == pytest.approx(2)
    assert found == pytest.approx(expected.tolist(), abs=0.03)
    assert max(found) - min(found) > 0.05, "the test tells no distribution from a uniform one"


def test_at_random_each_position_commits_by_itself() -> None:
    strategy = Dream(iterations_per_block=4, order="random")
    found, asked, logits_MV = chances(strategy, 4000)
    assert found == pytest.approx([(1 - 1e-3) / 4] * 5, abs=0.03)
    numbers = {
        sum(first_iteration(strategy, asked._replace(seed_B=torch.tensor([seed])), logits_MV))
        for seed in range(200)
    }
    assert {0, 1, 2, 3} <= numbers
    assert sum(map(sum, schedule(strategy, [17, 4, 1]))) == 22
