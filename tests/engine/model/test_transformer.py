"""Behind the last attention, a forward computes the requested rows alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.layers import over_heads
from engine.model.triton_operations import laid_out
from tests.tiny import tiny_llada2_model, tiny_model

MODELS = {"dense": tiny_model, "experts": tiny_llada2_model}


@pytest.mark.parametrize("kernels", [False, True], ids=["torch", "kernels"])
@pytest.mark.parametrize("rows", [[], [4], [0, 0, 7, 3, 12], list(range(13))], ids=len)
@pytest.mark.parametrize("name", MODELS)
def test_requested_rows_are_those_of_a_whole_forward(
    name: str, rows: list[int], kernels: bool
) -> None:
    model = MODELS[name]()
    ops = laid_out(model, lambda product: 2**62) if kernels else None
    seen: list[tuple[int, Tensor]] = []

    def hidden(rows_N: Tensor | None) -> Tensor:
        seen.clear()
        x_QD = model.embed(torch.arange(13) + 5)
        more = {} if ops is None else {"ops": ops}
        return model(x_QD, torch.arange(13), over_heads(attend), rows_N=rows_N, **more)

    def attend(layer: int, q_QHE: Tensor, k_QKE: Tensor, v_QKE: Tensor) -> Tensor:
        seen.append((layer, k_QKE))
        q, k, v = (x.transpose(0, 1) for x in (q_QHE, k_QKE, v_QKE))
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return mixed.transpose(0, 1).contiguous()

    whole, rows_N = hidden(None), torch.tensor(rows, dtype=torch.int64)
    keys = list(seen)
    torch.testing.assert_close(hidden(rows_N), whole[rows_N])
    assert [layer for layer, _ in seen] == list(range(len(model.layers)))
    for (_, one), (_, other) in zip(seen, keys, strict=True):
        assert torch.equal(one, other), "every position's K is written"


def test_of_a_model_without_layers_too() -> None:
    """As the benchmark of the host has it."""
    model = tiny_model()
    model.layers = nn.ModuleList()
    x_QD, rows_N = torch.randn(5, model.config.hidden_size), torch.tensor([3, 1])
    whole = model(x_QD, torch.arange(5), over_heads(lambda *_: _[1]))
    some = model(x_QD, torch.arange(5), over_heads(lambda *_: _[1]), rows_N=rows_N)
    torch.testing.assert_close(some, whole[rows_N])
