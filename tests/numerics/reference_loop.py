"""Diffusion decoding as the papers write it: one sequence, plain loops, no batch, pages or packing.

The definition of right for every cache policy (reference_caches.py) and decoding strategy
(reference_decoders.py). Written from the algorithms and the words of the output contract, not from
the engine; of the engine it uses the transformer and the request alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.reference_caches import CACHES, Forward
from tests.numerics.reference_decoders import DECODERS, Commits, View, is_finished
from tests.numerics.reference_model import DenseCache, embed
from tests.numerics.reference_state import State, first_state
from tests.numerics.reference_words import Floats

SOFT_DEFAULTS: dict[str, Any] = {
    "weight_start": 0.1,
    "weight_growth": 0.02,
    "weight_max": 0.3,
    "relaxation": 0.02,
    "temperature": 1.0,
    "top_k": None,
}


@dataclass
class Outcome:
    token_ids: list[int]
    finish_reason: str
    num_iterations: int
    num_refreshes: int
    num_query_tokens: int
    mean_confidence: float | None


def decode(
    model: Transformer,
    request: Request,
    *,
    cache: dict[str, Any],
    decoding: dict[str, Any],
    block_length: int,
    soft: dict[str, Any] | None = None,
    stop_at_eos: bool = True,
) -> Outcome:
    """`cache` and `decoding` hold a name and settings, `soft` settings alone; what is absent has
    its default. A block-causal model's own block length comes before `block_length`."""
    state = first_state(model, request, block_length)
    if decoding["name"] == "edit" and cache["name"] == "dkv":
        raise ValueError("decoding 'edit' changes committed tokens, cache 'dkv' keeps them")
    if soft is not None:
        assert soft.keys() <= SOFT_DEFAULTS.keys(), f"unknown settings among {list(soft)}"
        soft = SOFT_DEFAULTS | soft
    dense = DenseCache(model, len(state.canvas))
    while True:
        forward = CACHES[cache["name"]](state, **_settings(cache))
        hidden = dense.forward(embed(model, state, forward.positions, soft), forward.positions)
        iteration = state.num_decoding_iterations
        _count(state, forward)
        if not forward.has_logits:
            continue
        asked = state.open_positions() if decoding["name"] == "edit" else state.masked()
        rows = [forward.positions.index(i) for i in asked]
        logits = dict(zip(asked, dense.logits(hidden[rows]), strict=True))
        view = _view(state, logits, iteration, soft)
        commits = DECODERS[decoding["name"]](view, **_settings(decoding))
        _write(state, commits, logits)
        finished = is_finished(decoding, view, commits, len(state.masked()))
        may_end = finished or decoding["name"] != "edit"
        if stop_at_eos and may_end and state.has_ended():
            break
        if may_end and state.has_all():
            break
        if finished:
            # What was computed from the final tokens is final.
            was_final = not view.masked and not commits
            state.turn(is_cached=was_final)
    return _outcome(state)


def _settings(component: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in component.items() if key != "name"}


def _count(state: State, forward: Forward) -> None:
    if forward.is_refresh:
        state.num_refreshes += 1
        state.last_refresh = state.num_iterations
    state.num_iterations += 1
    state.num_query_tokens += len(forward.positions)
    state.num_cached = min(forward.positions[-1] + 1, state.block_start)
    state.uncached -= set(forward.positions)


def _view(
    state: State, logits: dict[int, Floats], iteration: int, soft: dict[str, Any] | None
) -> View:
    return View(
        logits=logits,
        masked=state.masked(),
        tokens={i: state.canvas[i] for i in logits},
        num_masked_at_block_start=state.num_masked_at_block_start,
        iteration=iteration,
        iteration_in_block=state.num_iterations_in_block,
        temperature=state.request.temperature,
        seed=state.request.seed,
        relaxation=None if soft is None else soft["relaxation"],
        memory=state.memory,
    )


def _write(state: State, commits: Commits, logits: dict[int, Floats]) -> None:
    state.previous_logits = logits
    state.num_decoding_iterations += 1
    state.num_iterations_in_block += 1
    for i, proposal in commits.items():
        state.canvas[i] = proposal.word
        state.confidences[i] = proposal.confidence
        state.uncached.add(i)


def _outcome(state: State) -> Outcome:
    """What was generated before the first EOS, or before the limit."""
    generated = state.canvas[state.prompt_len : state.limit]
    has_eos = state.eos in generated
    token_ids = generated[: generated.index(state.eos)] if has_eos else generated
    assert state.mask not in token_ids
    confidences = [state.confidences[state.prompt_len + i] for i in range(len(token_ids))]
    return Outcome(
        token_ids,
        "eos" if has_eos else "length",
        state.num_iterations,
        state.num_refreshes,
        state.num_query_tokens,
        float(np.mean(confidences)) if confidences else None,
    )
