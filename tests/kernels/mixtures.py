"""Small mixtures of experts for the tests of router and experts."""

import torch

from engine.kernels.experts import ExpertWeights
from engine.kernels.route import RouterWeights, split_in_three
from tests.kernels.places import Place


def router_of(
    place: Place, X: int = 16, D: int = 48, C: int = 3, *, is_sigmoid: bool = True
) -> RouterWeights:
    """Sigmoid scores with bias, groups and normalisation as LLaDA2's, or softmax without as
    LLaDA-MoE's."""
    weight = place.normal(X, D, scale=D**-0.5, dtype=torch.float32)
    return RouterWeights(
        parts=split_in_three(weight) if place.dtype == torch.bfloat16 else weight,
        bias_X=place.normal(X, scale=0.05, dtype=torch.float32) if is_sigmoid else None,
        num_chosen=C,
        is_sigmoid=is_sigmoid,
        is_normalised=is_sigmoid,
        scale=2.5 if is_sigmoid else 1.0,
        num_groups=4 if is_sigmoid else 1,
        num_chosen_groups=2 if is_sigmoid else 1,
        counts_X=place.ints([0] * X),
    )


def experts_of(place: Place, X: int = 16, D: int = 48, I: int = 20) -> ExpertWeights:  # noqa: E741
    return ExpertWeights(
        gate_up_XID=place.normal(X, 2 * I, D, scale=D**-0.5),
        down_XDI=place.normal(X, D, I, scale=I**-0.5),
    )
