"""Held-back ends of generation: the batched engine generates the tokens of the plain loops."""

import copy
from collections import Counter
from dataclasses import replace

import pytest

from engine.decoding import DECODERS
from engine.model.transformer import Transformer
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_exact
from tests.tiny import EOS, mixed_requests, tiny_llada2_model, tiny_model

TURN_END = 7
BLOCK = 8
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}


def with_turn_end(model: Transformer) -> Transformer:
    """The model with a second end, both of which it predicts often."""
    made = copy.deepcopy(model)
    made.config = replace(model.config, eos_token_ids=(EOS, TURN_END))
    made.head.weight.data[TURN_END] *= 1.6
    return made


MODELS = {
    "bidirectional": with_turn_end(tiny_model()),
    "block-causal": with_turn_end(tiny_llada2_model(block_length=BLOCK)),
}
REQUESTS = mixed_requests(4) + [
    replace(request, request_id=-1 - i, temperature=0.9)
    for i, request in enumerate(mixed_requests(3, seed=8))
]
CACHES = {"bidirectional": "dual", "block-causal": "block_causal"}
OTHERS = [
    {"name": "fixed", "iterations_per_block": 3, "order": order}
    for order in ("margin", "entropy", "random")
] + [
    *(
        {"name": "dream", "iterations_per_block": 3, "order": order}
        for order in ("margin", "random")
    ),
    {"name": "dream", "order": "entropy", "order_temperature": 0.5},
    {"name": "factor", "factor": 40.0},
    {"name": "entropy_bound", "bound": 9.0},
    {"name": "edit", "threshold": 0.3, "edit_threshold": 0.0, "max_post_iterations": 3},
]


@pytest.mark.parametrize("form", ["logits", "confidence", "softmax"])
@pytest.mark.parametrize(
    ("attention", "decoding"),
    [
        *(("bidirectional", {"name": name}) for name in DECODERS),
        *(("bidirectional", settings) for settings in OTHERS),
        *(("block-causal", {"name": name}) for name in ("threshold", "edit")),
    ],
    ids=str,
)
def test_every_strategy_holds_ends_back_as_the_plain_loop(
    attention: str, decoding: dict, form: str
) -> None:
    combination = Combination({"name": CACHES[attention]}, {**decoding, "suppress_eos": form})
    assert_exact(MODELS[attention], combination, REQUESTS, BLOCK)


@pytest.mark.parametrize("form", ["logits", "softmax"])
def test_with_soft_iteration(form: str) -> None:
    decoding = {"name": "threshold", "suppress_eos": form}
    assert_exact(
        MODELS["bidirectional"], Combination({"name": "dual"}, decoding, SOFT), REQUESTS, 8
    )


def test_generations_are_longer() -> None:
    """Without EOS, and no other end, all are as long as they may be."""
    model, lengths = tiny_model(), Counter[str | None]()
    for form in (None, "logits", "softmax", "confidence"):
        decoding = {"name": "threshold", "suppress_eos": form}
        results = Combination({"name": "dual"}, decoding).run(model, mixed_requests(24))
        lengths[form] = sum(result.num_generated_tokens for result in results.values())
        reasons = {str(result.finish_reason) for result in results.values()}
        assert reasons == ({"length"} if form == "logits" else {"eos", "length"}), form
    assert lengths[None] < lengths["confidence"] < lengths["logits"]
