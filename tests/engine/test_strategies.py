"""The rule of each decoding strategy."""

import pytest
import torch

from engine.decoding import DECODERS
from engine.decoding.credit import Credit
from engine.decoding.edit import Edit
from engine.decoding.entropy_bound import EntropyBound
from engine.decoding.factor import FORMS, Factor
from engine.decoding.fixed import Fixed
from engine.decoding.hierarchical import Hierarchical
from engine.decoding.klass import Klass
from engine.decoding.logits import Logits
from engine.decoding.threshold import Threshold
from tests.engine.ragged import BLOCK, MASK, VOCAB, certain, ragged, run
from tests.numerics import reference_decoders
from tests.numerics.reference_decoders import View


def test_threshold_commits_all_that_reach_it_and_always_the_best() -> None:
    asked, logits_MV = ragged([12, 12], seed=4)
    proposals, commit_M = run(Threshold(threshold=0.8), asked, logits_MV)
    confidence_M = logits_MV.softmax(-1).max(-1).values
    assert torch.allclose(proposals.confidence_M, confidence_M)
    for b in range(2):
        rows = asked.sequence_M == b
        expected = confidence_M[rows] >= 0.8
        expected[confidence_M[rows].argmax()] = True
        assert torch.equal(commit_M[rows], expected)
    assert commit_M.sum() > 2
    assert not commit_M.all()


def test_soft_iteration_raises_the_threshold() -> None:
    asked, logits_MV = ragged([12, 12], seed=4)
    raised = asked._replace(least_threshold_B=torch.tensor([1.0, 0.5]))
    _, commit_M = run(Threshold(threshold=0.8), raised, logits_MV)
    _, plain_M = run(Threshold(threshold=0.8), asked, logits_MV)
    assert commit_M[:12].sum() == 1
    assert torch.equal(commit_M[12:], plain_M[12:])


def test_fixed_commits_its_quota_over_a_block() -> None:
    """7 masks in 3 iterations: 3, 2, 2 (n_t = floor(m / S) + [t < m mod S])."""
    for t, quota in enumerate((3, 2, 2)):
        asked, logits_MV = ragged([7], seed=t)
        asked.num_iterations_in_block_B[:] = t
        assert int(run(Fixed(iterations_per_block=3), asked, logits_MV)[1].sum()) == quota


@pytest.mark.parametrize(
    ("num_masked", "iterations", "commits"),
    [
        (8, 5, [2, 2, 1, 2, 1]),
        (2, 5, [1, 0, 1, 0, 0]),
        (6, 3, [2, 2, 2]),
        (9, 1, [9]),
        (1, None, [1]),
        (16, None, [1] * 16),
        # 22 x float32(13 / 22) is less than 13 in float32, so 12 are kept.
        (22, None, [*[1] * 8, 2, 0, *[1] * 12]),
    ],
)
def test_fixed_spreads_the_remainder(
    num_masked: int, iterations: int | None, commits: list[int]
) -> None:
    """After each of S iterations, floor(M s / S) masks are left when s iterations are."""
    strategy, left = Fixed(iterations_per_block=iterations, remainder="spread"), num_masked
    for t, quota in enumerate(commits):
        asked, logits_MV = ragged([max(left, 1)], seed=t)
        asked.num_iterations_in_block_B[:] = t
        asked.num_masked_at_block_start_B[:] = num_masked
        commit_M = run(strategy, asked, logits_MV)[1]
        assert left == 0 or int(commit_M.sum()) == quota, t
        left -= quota
    assert left == 0


def test_factor_takes_the_longest_prefix() -> None:
    """The condition (n + 1)(1 - c) <= 1 for doubts 1 - c of 0.05, 0.1, 0.26, ...: n = 1 and 2 give
    0.1 and 0.3 and pass; n = 3 gives 1.04 and fails."""
    asked, _ = ragged([5])
    _, commit_M = run(Factor(), asked, certain([0.3, 0.1, 0.26, 0.05, 0.9]))
    assert commit_M.tolist() == [False, True, False, True, False]
    _, commit_M = run(Factor(), asked, certain([0.9, 0.95, 0.97, 0.92, 0.91]))
    assert commit_M.tolist() == [True, False, False, False, False]


def test_factor_as_in_the_code_commits_the_last_mask_if_only_that_fails() -> None:
    asked, _ = ragged([3, 2, 1, 4])
    logits_MV = certain([*(0.05, 0.9, 0.1), *(0.95, 0.9), 0.9, *(0.9, 0.8, 0.1, 0.95)])
    paper = [*(True, False, True), *(False, True), True, *(False, False, True, False)]
    code = [*(True, True, True), *(True, True), True, *(False, False, True, False)]
    assert run(Factor(), asked, logits_MV)[1].tolist() == paper
    assert run(Factor(form="code"), asked, logits_MV)[1].tolist() == code


def test_factor_as_in_the_code_looks_at_masked_positions_alone() -> None:
    """The third position is committed already, so the second one is the last that may fail."""
    asked, _ = ragged([3])
    asked = asked._replace(is_masked_M=torch.tensor([True, True, False]))
    _, commit_M = run(Factor(form="code"), asked, certain([0.1, 0.9, 0.01]))
    assert commit_M.tolist() == [True, True, False]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *(("factor", {"factor": f, "form": form}) for f in (0.5, 3.0) for form in FORMS),
        *(("entropy_bound", {"bound": b, "counts_own": own}) for b in (2.0, 9.0) for own in (0, 1)),
        *(("threshold", {"threshold": 0.7, "iterations_per_block": n}) for n in (1, 4, 13, 40)),
    ],
    ids=str,
)
def test_vectorised_rules_equal_plain_ones(name: str, settings: dict, seed: int) -> None:
    """Also where positions tie, and where all logits of a position are the same."""
    counts = [5, 1, 2, 31, 2, 3]
    asked, logits_MV = ragged(counts, seed=seed)
    logits_MV[::4] = logits_MV[0]
    logits_MV[7, :MASK] = 0.0
    _, commit_M = run(DECODERS[name](**settings), asked, logits_MV)
    for b in range(len(counts)):
        rows = (asked.sequence_M == b).nonzero()[:, 0].tolist()
        view = View(
            logits={row: logits_MV[row].numpy() for row in rows},
            masked=rows,
            tokens=dict.fromkeys(rows, MASK),
            block_length=asked.longest,
            num_masked_at_block_start=len(rows),
            iteration=0,
            iteration_in_block=0,
            temperature=0.0,
            seed=1,
            relaxation=None,
            memory={},
        )
        expected = reference_decoders.DECODERS[name](view, **settings)
        assert [row for row in rows if commit_M[row]] == sorted(expected)


def test_hierarchical_takes_the_best_of_each_run() -> None:
    asked, _ = ragged([6])
    asked.position_M[:] = torch.tensor([4, 5, 6, 10, 11, 20])
    logits_MV = certain([0.5, 0.3, 0.55, 0.2, 0.05, 0.7])
    _, commit_M = run(Hierarchical(threshold=0.9, low_threshold=0.4), asked, logits_MV)
    assert commit_M.tolist() == [False, True, False, False, True, False]


def test_entropy_bound_sums_the_entropies_of_better_ranked_positions() -> None:
    asked, _ = ragged([4])
    logits_MV = certain([0.02, 0.05, 0.01, 0.3])
    h = Logits(logits_MV, VOCAB).entropy().tolist()
    just = h[2] + h[0]
    for bound, expected in ((0.0, 1), (h[2] * 1.001, 2), (just * 1.001, 3), (10.0, 4)):
        _, commit_M = run(EntropyBound(bound=bound), asked, logits_MV)
        assert int(commit_M.sum()) == expected, bound


def test_entropy_bound_may_count_a_positions_own_entropy() -> None:
    """Strictly below the bound, as JetEngine's search does; the first commits whatever it is."""
    asked, _ = ragged([4])
    logits_MV = certain([0.02, 0.05, 0.01, 0.3])
    h = sorted(Logits(logits_MV, VOCAB).entropy().double().tolist())
    two = h[0] + h[1]
    for bound, expected in ((0.0, 1), (h[0], 1), (two, 1), (two * 1.001, 2), (10.0, 4)):
        _, commit_M = run(EntropyBound(bound=bound, counts_own=True), asked, logits_MV)
        assert int(commit_M.sum()) == expected, bound


def test_klass_waits_until_nothing_changes() -> None:
    strategy = Klass(num_stable=2, threshold=0.5, top_k=4)
    asked, _ = ragged([3], strategy=None)
    logits_MV = certain([0.1, 0.2, 0.3])
    fields_ = strategy.state_fields(VOCAB, BLOCK)
    state = {name: torch.zeros((3, f.width), dtype=f.dtype) for name, f in fields_.items()}
    counts = []
    for t in range(3):
        asked = asked._replace(state=state, num_iterations_in_block_B=torch.tensor([t]))
        proposals, commit_M = run(strategy, asked, logits_MV)
        state = dict(proposals.state)
        counts.append(int(commit_M.sum()))
    assert counts == [1, 1, 3]
    # Once another position is ready, the most confident one must wait until it is ready itself.
    state["stable"] = torch.tensor([[9], [0], [9]], dtype=torch.int32)
    state["probabilities"][1] = 0.25
    asked = asked._replace(state=state)
    _, commit_M = run(strategy, asked, certain([0.3, 0.1, 0.4]))
    assert commit_M.tolist() == [False, True, False]
    state["probabilities"][[0, 2]] = certain([0.3, 0.4]).softmax(-1).topk(4).values
    state["words"][[0, 2]] = certain([0.3, 0.4]).topk(4).indices.int()
    _, commit_M = run(strategy, asked, certain([0.3, 0.1, 0.4]))
    assert commit_M.tolist() == [True, False, True]


def test_credit_raises_the_score_of_a_repeated_word() -> None:
    strategy = Credit(threshold=0.9)
    asked, _ = ragged([2])
    logits_MV = certain([0.4, 0.3])
    fields_ = strategy.state_fields(VOCAB, BLOCK)
    state = {name: torch.zeros((2, f.width), dtype=f.dtype) for name, f in fields_.items()}
    confidences = []
    for _ in range(4):
        proposals, _ = run(strategy, asked._replace(state=state), logits_MV)
        state = dict(proposals.state)
        confidences.append(proposals.score_M[0].item())
        assert proposals.confidence_M[0].item() == pytest.approx(0.6), "without credit"
    assert confidences == sorted(confidences)
    assert confidences[0] > 0.6 + 0.05
    assert int((state["credits"] > 0).sum()) == 2, "one word of each position has credit"


def test_edit_replaces_tokens_that_the_model_no_longer_predicts() -> None:
    asked, _ = ragged([4])
    asked = asked._replace(
        token_M=torch.tensor([3, 7, 7, MASK]),
        is_masked_M=torch.tensor([False, False, False, True]),
    )
    logits_MV = certain([0.1, 0.1, 0.6, 0.9])
    _, commit_M = run(Edit(), asked, logits_MV)
    assert commit_M.tolist() == [False, True, False, True]
