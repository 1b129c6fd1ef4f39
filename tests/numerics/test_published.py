"""Checkpoints in the published layouts: after loading, the logits equal those of transformers'
models with the family's attention mask."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from engine.model.load import load_model
from tests.numerics.test_logits_llada2 import block_causal, our_logits
from tests.published import write_weights
from tests.published_configs import CONFIGS
from tests.published_references import LIVE


def _expected(reference: PreTrainedModel, canvas: Tensor, sees: Tensor) -> Tensor:
    hidden = torch.zeros(sees.shape, dtype=reference.dtype).masked_fill(~sees, -torch.inf)
    with torch.no_grad():
        return reference(canvas[None], attention_mask=hidden[None, None]).logits[0]


@pytest.mark.parametrize("layout", CONFIGS)
def test_logits_equal_transformers(tmp_path: Path, layout: str) -> None:
    reference, model = write_weights(tmp_path, layout), load_model(tmp_path)
    for length in (1, 37, 72):
        canvas = torch.randint(LIVE, (length,))
        canvas[length // 2 :: 3] = model.config.mask_token_id
        sees = block_causal(length, model.config.block_length or length)
        ours, expected = our_logits(model, canvas, sees), _expected(reference, canvas, sees)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", CONFIGS)
def test_bfloat16_is_as_near_to_float32_as_transformers_is(tmp_path: Path, layout: str) -> None:
    """The median relative error of a position's logits, against float32 with the same weights, is
    at most 3 % and at most 1.3 times that of transformers in bfloat16. (The median, because
    rounding may choose another expert where two score nearly the same.)"""
    reference = write_weights(tmp_path, layout).to(torch.bfloat16)
    model, exact = load_model(tmp_path, torch.bfloat16), deepcopy(reference).float()
    canvas = torch.randint(LIVE, (96,))
    sees = block_causal(len(canvas), model.config.block_length or len(canvas))
    expected = _expected(exact, canvas, sees)

    def error(logits: Tensor) -> float:
        return float(((logits - expected).norm(dim=-1) / expected.norm(dim=-1)).median())

    ours = error(our_logits(model, canvas, sees).float())
    assert ours <= min(0.03, 1.3 * error(_expected(reference, canvas, sees).float()))
