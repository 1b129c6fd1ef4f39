"""Soft iteration over the whole canvas (dInfer, arXiv 2510.08666), against the plain loop."""

import copy
from dataclasses import replace

import pytest

from engine.model.transformer import Transformer
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_exact, assert_same
from tests.tiny import VOCAB_SIZE, mixed_requests, tiny_model

BLOCK = 8
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}
"""Smaller than the defaults, because a model with random weights amplifies what is fed back."""
CANVAS = {**SOFT, "scope": "canvas"}
MODEL = tiny_model()


def shifted() -> Transformer:
    """The same weights, read as a model whose logits are those of the next position."""
    other = copy.deepcopy(MODEL)
    other.config = replace(MODEL.config, is_shifted=True)
    return other


@pytest.mark.parametrize(
    "cache",
    [
        {"name": "none"},
        {"name": "prefix"},
        {"name": "vicinity", "warmup": 0, "refresh_every_blocks": 2, "behind": 3, "ahead": 5},
        {"name": "dkv", "refresh_every_iterations": 3},
    ],
    ids=str,
)
def test_models_with_shifted_logits(cache: dict) -> None:
    requests = [
        replace(request, temperature=0.7 * (request.request_id % 2))
        for request in mixed_requests(6)
    ]
    combination = Combination(cache, {"name": "threshold", "threshold": 0.4}, CANVAS)
    assert_exact(shifted(), combination, requests, BLOCK)


@pytest.mark.parametrize("num_positions", [1, 5])
def test_pieces_of_logits_change_no_token(num_positions: int) -> None:
    combination = Combination({"name": "prefix"}, {"name": "threshold"}, CANVAS)
    requests, settings = mixed_requests(6), {"block_length": BLOCK}
    whole = combination.run(MODEL, requests, **settings)
    # In plain torch, a logit takes at most 24 bytes in greedy decoding.
    room = num_positions * 24 * VOCAB_SIZE
    assert_same(combination.run(MODEL, requests, **settings, logits_bytes=room), whole, "pieces")


def test_only_blocks_that_open_softened_differ_between_the_scopes() -> None:
    """A canvas of one block has nothing behind it. The second block of a longer canvas opens with
    plain masks in one scope and with what the refresh before expected in the other."""
    decoding = {"name": "threshold", "threshold": 0.4}
    soft = {**SOFT, "weight_start": 0.3, "weight_max": 0.3}
    canvas, block = (
        Combination({"name": "dual"}, decoding, {**soft, "scope": scope})
        for scope in ("canvas", "block")
    )
    long = [replace(request, max_new_tokens=3 * BLOCK) for request in mixed_requests(4)]
    short = [replace(request, max_new_tokens=BLOCK - 1) for request in long]
    settings = {"block_length": BLOCK, "stop_at_eos": False}
    of_short = canvas.run(MODEL, short, **settings)
    assert of_short == block.run(MODEL, short, **settings)
    assert canvas.run(MODEL, long, **settings) != block.run(MODEL, long, **settings)
