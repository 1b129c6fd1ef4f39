"""Logits that are not finite become the error of their row, and leave all other rows alone."""

import pytest
import torch

from engine.decoding import DECODERS
from engine.decoding.logits import Logits
from engine.decoding.propose import propose
from engine.request import FinishReason, Request
from tests.engine.ragged import VOCAB, certain, ragged
from tests.numerics.combinations import Combination
from tests.tiny import VOCAB_SIZE, mixed_requests, tiny_model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("decoding", list(DECODERS))
def test_the_row_is_an_error_and_the_others_do_not_change(decoding: str, value: float) -> None:
    """One token has an embedding such as an overflow would leave. A single prompt contains it, and
    its head weights of zero keep it out of all answers."""
    combination = Combination({"name": "dual"}, {"name": decoding})
    good = mixed_requests(4)
    token = max(set(range(VOCAB_SIZE - 2)) - {t for r in good for t in r.prompt_ids})
    model = tiny_model()
    model.head.weight.data[token] = 0
    expected = combination.run(model, good, block_length=8)
    model.embed.weight.data[token] = value
    broken = Request(request_id="broken", prompt_ids=[1, token, 2], max_new_tokens=20)
    results = combination.run(model, [*good[:2], broken, *good[2:]], block_length=8)
    failed = results.pop("broken")
    assert failed.finish_reason is FinishReason.ERROR
    assert failed.error is not None
    assert "logits are not finite: take model.dtype=" in failed.error
    assert results == expected


def test_the_confidence_is_nan_where_a_logit_is_not_finite() -> None:
    asked, _ = ragged([3])
    logits_MV = certain([0.1, 0.2, 0.3])
    logits_MV[0, 5] = torch.inf
    logits_MV[1, 5] = torch.nan
    confidence_M = propose(asked, Logits(logits_MV, VOCAB)).confidence_M
    assert confidence_M.isnan().tolist() == [True, True, False]
