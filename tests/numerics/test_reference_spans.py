"""Which positions the reference's cache policies feed through the model, forward by forward."""

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.block_causal import as_block_causal
from tests.numerics.reference_loop import Outcome, decode
from tests.numerics.reference_model import DenseCache
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model()


def spans(
    monkeypatch: pytest.MonkeyPatch, model: Any, cache: dict[str, Any], prompt_len: int, new: int
) -> tuple[list[list[int]], Outcome]:
    """The positions of every forward, when blocks of 4 are committed in two iterations each."""
    fed: list[list[int]] = []
    plain = DenseCache.forward

    def forward(self: DenseCache, embedded: Tensor, positions: list[int]) -> Tensor:
        fed.append(positions)
        return plain(self, embedded, positions)

    monkeypatch.setattr(DenseCache, "forward", forward)
    request = Request(request_id=0, prompt_ids=list(range(prompt_len)), max_new_tokens=new)
    decoding = {"name": "fixed", "iterations_per_block": 2}
    outcome = decode(
        model, request, cache=cache, decoding=decoding, block_length=4, stop_at_eos=False
    )
    assert outcome.num_iterations == len(fed)
    assert outcome.num_query_tokens == sum(len(positions) for positions in fed)
    return fed, outcome


def ends(positions: list[int]) -> tuple[int, int]:
    assert positions == list(range(positions[0], positions[-1] + 1))
    return positions[0], positions[-1] + 1


@pytest.mark.parametrize(
    ("cache", "expected", "num_refreshes"),
    [
        ({"name": "none"}, [(0, 16)] * 6, 6),
        ({"name": "dual"}, [(0, 16), (6, 10), (0, 16), (10, 14), (0, 16), (14, 16)], 3),
        ({"name": "prefix"}, [(0, 16), (6, 16), (0, 16), (10, 16), (0, 16), (14, 16)], 3),
        (
            {"name": "dual", "refresh_every_iterations": 2},
            [(0, 16), (6, 10), (0, 16), (10, 14), (0, 16), (14, 16)],
            3,
        ),
        ({"name": "dual", "refresh_every_iterations": 1}, [(0, 16)] * 6, 6),
        ({"name": "commit"}, [(0, 16), (6, 10), (6, 14), (10, 14), (10, 16), (14, 16)], 1),
        (
            {"name": "vicinity", "behind": 1, "ahead": 2, "warmup": 0},
            [(0, 16), (5, 12), (0, 16), (9, 16), (0, 16), (13, 16)],
            3,
        ),
        (
            {"name": "vicinity", "behind": 1, "ahead": 0, "refresh_every_blocks": 9},
            [(0, 16)] * 5 + [(13, 16)],
            5,
        ),
        (
            {"name": "vicinity", "behind": 1, "ahead": 0, "warmup": 3, "refresh_every_blocks": 9},
            [(0, 16)] * 4 + [(10, 16), (13, 16)],
            4,
        ),
        (
            {
                "name": "vicinity",
                "warmup": 0,
                "refresh_every_blocks": 9,
                "refresh_every_iterations": 3,
                "behind": 5,
                "ahead": 0,
            },
            [(0, 16), (1, 10), (5, 14), (0, 16), (9, 16), (9, 16)],
            2,
        ),
    ],
)
def test_spans(
    monkeypatch: pytest.MonkeyPatch,
    model: Transformer,
    cache: dict[str, Any],
    expected: list[tuple[int, int]],
    num_refreshes: int,
) -> None:
    """A prompt of 6, blocks [6, 10), [10, 14) and [14, 16), two iterations each."""
    fed, outcome = spans(monkeypatch, model, cache, 6, 10)
    assert [ends(positions) for positions in fed] == expected
    assert outcome.num_refreshes == num_refreshes


@pytest.mark.parametrize(
    ("prompt_len", "settings", "expected", "num_refreshes"),
    [
        (9, {}, [(0, 12), (8, 12), (8, 16), (12, 16)], 1),
        (9, {"fused_commit": False}, [(0, 8), (8, 12), (8, 12), (8, 12), (12, 16), (12, 16)], 1),
        (9, {"prefill_tokens": 4}, [(0, 4), (4, 12), (8, 12), (8, 16), (12, 16)], 2),
        (9, {"prefill_tokens": 8}, [(0, 12), (8, 12), (8, 16), (12, 16)], 1),
        (8, {"prefill_tokens": 1}, [(0, 4), (4, 8), (8, 12), (8, 12), (8, 16), (12, 16)], 2),
        (2, {}, [(0, 4), (0, 4), (0, 8), (4, 8)], 1),
    ],
)
def test_spans_of_the_block_causal_cache(
    monkeypatch: pytest.MonkeyPatch,
    model: Transformer,
    prompt_len: int,
    settings: dict[str, Any],
    expected: list[tuple[int, int]],
    num_refreshes: int,
) -> None:
    cache = {"name": "block_causal", **settings}
    fed, outcome = spans(monkeypatch, as_block_causal(model, 4), cache, prompt_len, 6)
    assert [ends(positions) for positions in fed] == expected
    assert outcome.num_refreshes == num_refreshes
    assert len(outcome.token_ids) <= 6


def test_dkv_feeds_masks_and_what_was_just_committed(
    monkeypatch: pytest.MonkeyPatch, model: Transformer
) -> None:
    fed, outcome = spans(monkeypatch, model, {"name": "dkv"}, 6, 10)
    assert outcome.num_refreshes == 1
    assert [len(positions) for positions in fed] == [16, 4, 6, 4, 4, 2]
    assert fed[1] == [6, 7, 8, 9]
    assert set(fed[2]) > {10, 11, 12, 13}
    assert set(fed[4]) > {14, 15}


def test_reading_unwritten_keys_fails(model: Transformer) -> None:
    dense = DenseCache(model, 4)
    hidden = dense.forward(model.embed(torch.tensor([1, 2])), [0, 1])
    with pytest.raises(AssertionError, match="no forward has written"):
        dense.logits(hidden)
