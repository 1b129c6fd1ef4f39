"""The mixture of experts: choice of experts, weights, and the two ways to compute them."""

import pytest
import torch
from torch import Tensor

from engine.model.config import ExpertsConfig
from engine.model.moe import MoE, Router, can_group, grouped, looped, tiled


def experts_config(**changes: int | float | str) -> ExpertsConfig:
    fields: dict[str, int | float | str] = {
        "num_experts": 16,
        "num_chosen": 3,
        "expert_size": 20,
        "num_groups": 4,
        "num_chosen_groups": 2,
        "routed_scale": 2.5,
        "shared_size": 24,
        "num_dense_layers": 0,
        "score": "sigmoid",
        "has_bias": True,
    }
    return ExpertsConfig(**(fields | changes))  # type: ignore[arg-type]


def choice_by_the_book(scores: list[float], bias: list[float], config: ExpertsConfig) -> set[int]:
    """The experts of one token, written from the paper's description."""
    wanted = [score + b for score, b in zip(scores, bias, strict=True)]
    size = config.num_experts // config.num_groups
    groups = [range(g * size, (g + 1) * size) for g in range(config.num_groups)]
    groups.sort(key=lambda group: -sum(sorted(wanted[e] for e in group)[-2:]))
    open_ = [e for group in groups[: config.num_chosen_groups] for e in group]
    return set(sorted(open_, key=lambda e: -wanted[e])[: config.num_chosen])


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_groups": 1, "num_chosen_groups": 1}, {"num_chosen_groups": 1}, {"num_chosen": 8}],
    ids=str,
)
def test_the_router_chooses_within_groups_and_weighs_without_bias(changes: dict[str, int]) -> None:
    torch.manual_seed(0)
    config = experts_config(**changes)
    router = Router(40, config)
    router.bias.data.normal_(std=0.3)
    x_QD = torch.randn(50, 40)
    chosen_QC, weights_QC = router(x_QD)
    scores_QX = (x_QD @ router.weight.T).sigmoid()
    for scores, chosen, weights in zip(scores_QX, chosen_QC, weights_QC, strict=True):
        expected = choice_by_the_book(scores.tolist(), router.bias.tolist(), config)
        assert set(chosen.tolist()) == expected
        share = scores[chosen] / scores[chosen].sum()
        torch.testing.assert_close(weights, 2.5 * share)


def through_experts(
    counts: list[int], hidden: int, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(sum(counts) + hidden)
    x_PD = torch.randn(sum(counts), hidden, dtype=dtype)
    ends_X = torch.tensor(counts).cumsum(0).int()
    gate_up = torch.randn(len(counts), 2 * size, hidden, dtype=dtype) * hidden**-0.5
    down = torch.randn(len(counts), hidden, size, dtype=dtype) * size**-0.5
    return x_PD, ends_X, gate_up, down


@pytest.mark.parametrize("counts", [[7], [0, 5, 0, 1, 0], [3, 0, 0, 19, 64], [0, 1]], ids=str)
@pytest.mark.parametrize(("hidden", "size"), [(48, 20), (64, 36)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_grouped_and_looped_give_the_same(
    counts: list[int], hidden: int, size: int, dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16:
        size += size % 8
    x_PD, ends_X, gate_up, down = through_experts(counts, hidden, size, dtype)
    assert can_group(x_PD, gate_up, down)
    expected = looped(x_PD, ends_X, gate_up, down)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(
        grouped(x_PD, ends_X, gate_up, down), expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(
    "counts", [[7], [0, 5, 0, 1, 0], [3, 0, 33, 19, 64, 0], [31] * 40, [0, 700, 0]], ids=str
)
@pytest.mark.parametrize("behind", [0, 9])
def test_tiled_and_looped_give_the_same(counts: list[int], behind: int) -> None:
    """Rows behind the last run, of experts on other ranks, may come out as anything."""
    x_PD, ends_X, gate_up, down = through_experts([*counts, behind], 33, 21, torch.float32)
    weights = ends_X[:-1], gate_up[:-1].contiguous(), down[:-1].contiguous()
    expected = looped(x_PD[: sum(counts)], *weights)
    torch.testing.assert_close(tiled(x_PD, *weights)[: sum(counts)], expected, rtol=1e-5, atol=1e-5)


def test_tiled_reads_nothing_back_from_the_device() -> None:
    arguments = through_experts([3, 0, 70], 33, 21, torch.float32)
    out_PD = tiled(*(x.to("meta") for x in arguments))
    assert out_PD.shape == (73, 33)


@pytest.mark.parametrize(("hidden", "size"), [(33, 20), (48, 21), (47, 19)])
def test_odd_sizes_and_float64_cannot_be_grouped(hidden: int, size: int) -> None:
    x_PD, ends_X, gate_up, down = through_experts([2, 0, 3], hidden, size, torch.float32)
    assert not can_group(x_PD, gate_up, down)
    assert looped(x_PD, ends_X, gate_up, down).isfinite().all()
    assert not can_group(*(t.double() for t in (torch.zeros(1, 48), torch.zeros(2, 48, 48))))


@pytest.mark.parametrize("hidden", [48, 47])
def test_the_layer_is_the_weighted_sum_of_its_experts(hidden: int) -> None:
    torch.manual_seed(0)
    layer = MoE(hidden, experts_config())
    layer.router.bias.data[3] = -9.0
    x_QD = torch.randn(29, hidden)
    chosen_QC, weights_QC = layer.router(x_QD)
    assert 3 not in chosen_QC
    for x, chosen, weights, y in zip(x_QD, chosen_QC, weights_QC, layer(x_QD), strict=True):
        expected = layer.shared(x)
        for expert, weight in zip(chosen, weights, strict=True):
            gate, up = (layer.experts.gate_up[expert] @ x).chunk(2)
            expected = expected + weight * (
                layer.experts.down[expert] @ (gate.sigmoid() * gate * up)
            )
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    layer = MoE(48, experts_config())
    x_QD = torch.randn(64, 48)
    with torch.no_grad():
        together = layer(x_QD)
        for rows in ([5], [63, 5, 0], list(range(17))):
            torch.testing.assert_close(layer(x_QD[rows]), together[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 0}, "num_experts=0"),
        ({"shared_size": -1}, "shared_size=-1: give 0 or more"),
        ({"num_experts": 18}, "num_experts=18 in num_groups=4"),
        ({"num_experts": 4, "num_chosen": 2}, "at least two"),
        ({"num_chosen_groups": 5}, "num_chosen_groups=5 is more than num_groups=4"),
        ({"num_chosen": 9}, "num_chosen=9: the chosen groups hold only 8"),
    ],
)
def test_an_impossible_experts_config_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experts_config(**changes)
