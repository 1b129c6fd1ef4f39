"""With engine.batch_invariant=true, the default, a row's tokens and confidence are the same bits in
any batch: alone, among any number of other rows, in any order, and after forwards that ran out of
memory. On a GPU in bfloat16; on the CPU in Triton's interpreter, in float32."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine import triton_kernels
from engine.kernels import tiles
from engine.model.moe import keep_routers_float32
from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.combinations import ATTENTIONS, Combination, legal
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

BLOCK = 8
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}
TINY = {
    "bidirectional": lambda: tiny_model(n_layers=1),
    "block-causal": lambda: tiny_llada2_model(block_length=BLOCK, num_hidden_layers=2),
}


def wide_bidirectional() -> Transformer:
    """Heads of 128, so that long spans go through the TMA kernel, and products deep enough for
    cuBLAS to split."""
    return tiny_model(d_model=512, n_heads=4, n_kv_heads=4, mlp_hidden_size=2048)


def wide_block_causal() -> Transformer:
    return tiny_llada2_model(
        block_length=BLOCK,
        hidden_size=512,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=128,
        rotary_dim=64,
        intermediate_size=2048,
        moe_intermediate_size=256,
    )


WIDE = {"bidirectional": wide_bidirectional, "block-causal": wide_block_causal}

Bits = dict[Any, tuple[tuple[int, ...], str]]


def bits_of(
    combination: Combination,
    model: Transformer,
    requests: list[Request],
    fails: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Bits:
    """Token ids and the exact mean confidence of every request. A forward for which `fails()` runs
    out of memory when the model is through with it, and is tried again."""
    engine = combination.engine(model, block_length=BLOCK, **settings)
    forward = engine.runner.forward

    def failing(*args: Any) -> torch.Tensor:
        hidden_MD = forward(*args)
        if fails():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return hidden_MD

    engine.runner.forward = failing  # type: ignore[method-assign]
    results = {result.request_id: result for result in engine.results(requests)}
    assert all(result.error is None for result in results.values()), "a row failed"
    return {
        i: (tuple(result.token_ids), repr(result.mean_confidence)) for i, result in results.items()
    }


def every_third() -> Callable[[], bool]:
    calls: list[int] = []

    def fails() -> bool:
        calls.append(1)
        return len(calls) % 3 == 2

    return fails


def assert_same_bits(
    combination: Combination, model: Transformer, rows: list[Request], crowd: list[Request]
) -> None:
    """`rows` come out alike alone and among the crowd."""

    def bits(requests: list[Request], **more: Any) -> Bits:
        found = bits_of(combination, model, requests, **{"kernels": "triton", **more})
        return {row.request_id: found[row.request_id] for row in rows}

    alone: Bits = {}
    for row in rows:
        alone |= bits_of(combination, model, [row], kernels="triton")
    shuffled = random.Random(1).sample([*rows, *crowd], len(rows) + len(crowd))
    for size in (2, 8, 32):
        if size <= 2 * len(shuffled):
            assert bits(shuffled, max_sequences=size) == alone, f"batches of {size}"
    assert bits([*crowd[::-1], *rows[::-1]], max_sequences=32) == alone, "another order"
    assert bits(shuffled, max_sequences=8, fails=every_third()) == alone, "after failed forwards"


def numbered(requests: list[Request], first: int) -> list[Request]:
    return [replace(request, request_id=first + i) for i, request in enumerate(requests)]


@pytest.mark.parametrize(
    ("attention", "combination"),
    [
        ("bidirectional", Combination({"name": "dual"}, {"name": "threshold"})),
        ("block-causal", Combination({"name": "block_causal"}, {"name": "entropy_bound"}, SOFT)),
    ],
    ids=str,
)
def test_a_row_has_the_same_bits_in_any_batch(attention: str, combination: Combination) -> None:
    rows = [
        Request(request_id=0, prompt_ids=[*range(20, 29)], max_new_tokens=4),
        Request(request_id=1, prompt_ids=[3], max_new_tokens=3, temperature=0.7, seed=5),
    ]
    crowd = [Request(request_id=2, prompt_ids=[9, 8, 7], max_new_tokens=2)]
    assert_same_bits(combination, TINY[attention](), rows, crowd)


def split_early(monkeypatch: pytest.MonkeyPatch, most_programs: int) -> set[tuple[int, bool]]:
    """Contexts of more than one step of 64 positions are split, and splits are spread over at most
    so many programs. Returns what is planned from now on: (splits, is_spread)."""
    monkeypatch.setattr(tiles, "STEPS_OF_SPLIT", 1)
    monkeypatch.setattr(tiles, "MOST_PROGRAMS_TO_SPREAD", most_programs)
    planned, plan = set[tuple[int, bool]](), triton_kernels.plan_tiles

    def noting(*args: Any) -> list[tiles.HostTiles]:
        found = plan(*args)
        planned.update((each.tile.splits, each.tile.is_spread) for each in found)
        return found

    monkeypatch.setattr(triton_kernels, "plan_tiles", noting)
    return planned


ALL_KINDS = {(1, False), (tiles.MOST_SPLITS, False), (tiles.MOST_SPLITS, True)}


def test_a_row_has_the_same_bits_where_contexts_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone each split has a program of its own, in a batch one program takes them all. The second
    row's context has one split: alone it is not split at all."""
    planned = split_early(monkeypatch, most_programs=4)
    rows = [
        Request(request_id=0, prompt_ids=[*range(64)], max_new_tokens=4),
        Request(request_id=1, prompt_ids=[*range(20, 50)], max_new_tokens=3, temperature=0.7),
    ]
    crowd = [Request(request_id=2, prompt_ids=[*range(70)], max_new_tokens=2)]
    combination = Combination({"name": "dual"}, {"name": "threshold"})
    assert_same_bits(combination, TINY["bidirectional"](), rows, crowd)
    assert planned == ALL_KINDS


def cases_on_a_gpu() -> Iterator[Any]:
    """Every legal pair of cache policy and decoder once: in turn tiny and wide, each of them in
    turn without and with soft iteration. All four of every pair would take a GPU half an hour."""
    for attention in ATTENTIONS:
        found = list(legal(TINY[attention]().config, SOFT))
        for i, combination in enumerate(found[::2]):
            its = combination._replace(soft=SOFT if i // 2 % 2 else None)
            name = f"{attention}-{its}-{'wide' if i % 2 else 'tiny'}"
            yield pytest.param(attention, its, bool(i % 2), id=name)


@pytest.mark.gpu
@pytest.mark.parametrize(("attention", "combination", "is_wide"), [*cases_on_a_gpu()])
def test_a_row_has_the_same_bits_in_any_batch_on_a_gpu(
    attention: str, combination: Combination, is_wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = split_early(monkeypatch, most_programs=tiles.MOST_PROGRAMS_TO_SPREAD)
    model = (WIDE if is_wide else TINY)[attention]().to("cuda", torch.bfloat16)
    keep_routers_float32(model)
    rows = numbered(
        [*mixed_requests(2, seed=2), *mixed_requests(2, seed=3, temperature=0.7)], first=0
    )
    crowd = numbered(
        [*mixed_requests(14, seed=4), *mixed_requests(14, seed=5, temperature=0.9)], first=100
    )
    assert_same_bits(combination, model, rows, crowd)
    assert (tiles.MOST_SPLITS, True) in planned
