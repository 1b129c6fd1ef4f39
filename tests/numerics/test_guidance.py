"""Classifier-free guidance: the engine generates the tokens of LLaDA's own loop, and of the plain
loop with a second canvas whose prompt is masks, whatever the batch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cache import CACHE_POLICIES
from engine.model.layers import over_heads
from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_exact, assert_same
from tests.published import small_vocabulary, write_weights
from tests.tiny import EOS, MASK, VOCAB_SIZE, mixed_requests, tiny_llada2_model, tiny_model

BLOCK = 16
MODEL = tiny_model()
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}
PLAIN = Combination({"name": "none"}, {"name": "fixed"})


def full_forward(model: Transformer, x_BL: Tensor) -> Tensor:
    """Logits of whole canvases of the same length, [B, L, V], without any cache."""
    rows = []
    for x_L in x_BL:

        @over_heads
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            query, key, value = (x.transpose(0, 1)[None] for x in (q, k, v))
            mixed = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
            return mixed[0].transpose(0, 1)

        hidden = model(model.embed(x_L), torch.arange(len(x_L)), attend)
        rows.append(model.logits(hidden))
    return torch.stack(rows)


@torch.no_grad()
def llada_generate(
    model: Transformer, prompt: list[int], *, steps: int, length: int, block: int, cfg_scale: float
) -> list[int]:
    """The authors' `generate` with low-confidence remasking at temperature 0 (ML-GSAI/LLaDA,
    generate.py), but the mask token is never predicted."""
    x = torch.full((1, len(prompt) + length), MASK)
    x[0, : len(prompt)] = torch.tensor(prompt)
    prompt_index = x != MASK
    steps = steps // (length // block)
    for start in range(len(prompt), len(prompt) + length, block):
        num_masks = int((x[0, start : start + block] == MASK).sum())
        num_transfer = [num_masks // steps + (i < num_masks % steps) for i in range(steps)]
        for count in num_transfer:
            un_x = x.clone()
            un_x[prompt_index] = MASK
            logits, un_logits = full_forward(model, torch.cat([x, un_x])).chunk(2)
            logits = un_logits + (cfg_scale + 1) * (logits - un_logits)
            logits[:, :, MASK] = -torch.inf
            x0 = logits.argmax(-1)
            x0_p = logits.double().softmax(-1).gather(-1, x0[..., None])[..., 0]
            x0_p[:, start + block :] = -torch.inf
            confidence = x0_p.where(x == MASK, -torch.inf)
            chosen = confidence[0].topk(count).indices
            x[0, chosen] = x0[0, chosen]
    return x[0, len(prompt) :].tolist()


@pytest.mark.parametrize("cfg_scale", [0.5, 2.0])
@pytest.mark.parametrize("steps", [32, 12])
def test_the_tokens_are_those_of_lladas_own_loop(steps: int, cfg_scale: float) -> None:
    """In a batch with rows without guidance, and alone."""
    length = 2 * BLOCK
    combination = Combination(
        {"name": "none"}, {"name": "fixed", "iterations_per_block": steps // 2}
    )
    requests = [
        replace(request, max_new_tokens=length, guidance=cfg_scale * (request.request_id < 4))
        for request in mixed_requests(6)
    ]
    settings = {"block_length": BLOCK, "stop_at_eos": False}
    results = combination.run(MODEL, requests, **settings)
    num_long = 0
    for request in requests[:4]:
        theirs = llada_generate(
            MODEL, request.prompt_ids, steps=steps, length=length, block=BLOCK, cfg_scale=cfg_scale
        )
        end = theirs.index(EOS) if EOS in theirs else length
        num_long += end > BLOCK
        result = results[request.request_id]
        assert result.token_ids == theirs[:end]
        assert result.num_iterations == steps
        assert result.num_query_tokens == 2 * steps * (len(request.prompt_ids) + length)
        alone = combination.run(MODEL, [request], **settings)
        assert alone[request.request_id].token_ids == theirs[:end]
    assert num_long > 1


def guided_and_others(count: int = 3) -> list[Request]:
    """Greedy and sampled, with weights of guidance and without; the loop knows raw confidences."""
    requests = [
        *(replace(r, guidance=(0.5, 0.0, 1.5)[r.request_id % 3]) for r in mixed_requests(count)),
        *(
            replace(r, request_id=-1 - i, temperature=0.7, guidance=(0.0, 1.0)[i % 2])
            for i, r in enumerate(mixed_requests(count, seed=8))
        ),
    ]
    return [replace(request, confidence="raw") for request in requests]


def cases() -> Iterator[Any]:
    """Every policy, with strategies in turn; every strategy that keeps a state or reads whole
    logits."""
    decodings: list[dict[str, Any]] = [
        {"name": "threshold", "threshold": 0.6},
        {"name": "klass", "num_stable": 1, "threshold": 0.4, "top_k": 5},
        {"name": "credit", "threshold": 0.6},
        {"name": "fixed", "iterations_per_block": 5, "order": "margin"},
        {"name": "entropy_bound", "bound": 1.0},
        {"name": "edit", "threshold": 0.3, "edit_threshold": 0.2},
    ]
    policies = [name for name in CACHE_POLICIES if name != "block_causal"]
    for i, cache in enumerate(policies):
        decoding = decodings[i % len(decodings)]
        if cache == "dkv" and decoding["name"] == "edit":
            decoding = decodings[0]
        yield "bidirectional", Combination({"name": cache}, decoding)
    yield "bidirectional", Combination({"name": "none"}, decodings[5])
    yield "bidirectional", Combination({"name": "dkv"}, decodings[1], SOFT)
    # Not with a threshold: in the first forward soft iteration raises it to 1, and guided
    # confidences are so close to 1 that rounding would decide.
    yield "bidirectional", Combination({"name": "dual"}, decodings[3], SOFT)
    yield "block-causal", Combination({"name": "none"}, decodings[0])
    yield "block-causal", Combination({"name": "block_causal"}, decodings[0])
    yield (
        "block-causal",
        Combination(
            {"name": "block_causal", "fused_commit": False, "prefill_tokens": 7}, decodings[5]
        ),
    )


@pytest.mark.parametrize(
    ("attention", "combination"),
    [pytest.param(*case, id="-".join(map(str, case))) for case in cases()],
)
def test_every_policy_equals_the_loop_over_two_canvases(
    attention: str, combination: Combination
) -> None:
    causal = attention == "block-causal"
    model = tiny_llada2_model(block_length=BLOCK) if causal else MODEL
    assert_exact(model, combination, guided_and_others(), BLOCK)


@pytest.mark.parametrize(
    ("layout", "changes", "cache"),
    [
        ("dream", {}, "dual"),
        ("dream", {}, "dkv"),
        ("fast_dllm_v2_small", {"bd_size": 16}, "block_causal"),
    ],
)
def test_a_shifted_model_equals_the_loop_over_two_canvases(
    layout: str, changes: dict[str, Any], cache: str, tmp_path: Path
) -> None:
    """The logits of the first new position come from the last position of the prompt, a mask in the
    twin."""
    write_weights(tmp_path, layout, **small_vocabulary(layout, MASK, EOS), **changes)
    combination = Combination({"name": cache}, {"name": "threshold", "threshold": 0.6})
    assert_exact(load_model(tmp_path), combination, guided_and_others(), BLOCK)


def test_guidance_changes_tokens_and_its_weight_matters() -> None:
    found = []
    for guidance in (0.0, 0.5, 1.5):
        requests = [replace(request, guidance=guidance) for request in mixed_requests(8)]
        results = PLAIN.run(MODEL, requests, block_length=BLOCK)
        found.append([results[request.request_id].token_ids for request in requests])
    assert found[0] != found[1] != found[2] != found[0]


@pytest.mark.parametrize("cache", ["none", "dual", "dkv"])
def test_rows_without_guidance_do_not_see_that_others_have_it(cache: str) -> None:
    """Nor do they pay for it: each takes the forwards and query tokens that it takes alone."""
    combination = Combination({"name": cache}, {"name": "threshold"})
    requests = guided_and_others(6)
    plain = [request for request in requests if request.guidance == 0]
    assert 0 < len(plain) < len(requests)
    alone = combination.run(MODEL, plain, block_length=BLOCK, max_sequences=1)
    mixed = combination.run(MODEL, requests, block_length=BLOCK)
    assert_same({r.request_id: mixed[r.request_id] for r in plain}, alone, "rows with guidance")


def test_pieces_of_logits_change_nothing() -> None:
    combination = Combination({"name": "dual"}, {"name": "klass"}, SOFT)
    requests = guided_and_others(4)
    whole = combination.run(MODEL, requests, block_length=BLOCK)
    few = combination.run(MODEL, requests, block_length=BLOCK, logits_bytes=VOCAB_SIZE * 44 * 3)
    assert_same(few, whole, "pieces")


def test_on_the_triton_kernels_a_row_has_the_same_bits_among_rows_with_guidance() -> None:
    """In Triton's interpreter, with few and short sequences."""
    model, settings = tiny_model(n_layers=1), {"block_length": 8, "kernels": "triton"}
    combination = Combination({"name": "dual"}, {"name": "threshold", "threshold": 0.6})
    requests = [
        Request(request_id=0, prompt_ids=[*range(20, 29)], max_new_tokens=4),
        Request(request_id=1, prompt_ids=[3], max_new_tokens=3, guidance=1.0),
        Request(
            request_id=2, prompt_ids=[9, 8, 7], max_new_tokens=5, guidance=0.5, temperature=0.7
        ),
    ]
    together = combination.run(model, requests, **settings)
    for request in requests:
        i = request.request_id
        assert combination.run(model, [request], **settings)[i] == together[i]
        expected = combination.reference(model, request, 8)
        assert together[i].token_ids == expected.token_ids
        assert together[i].mean_confidence == pytest.approx(expected.mean_confidence, abs=1e-4)
