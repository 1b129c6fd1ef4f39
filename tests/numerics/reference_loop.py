"""Diffusion decoding as the papers write it: one sequence, plain loops, no batch, pages or packing.

This defines the correct result of every cache policy (reference_caches.py) and decoding strategy
(reference_decoders.py). It was written from the algorithms and the output contract, not from the
engine, of which it uses only the transformer and the request.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.reference_caches import CACHES, Forward
from tests.numerics.reference_decoders import DECODERS, Commits, View, is_finished
from tests.numerics.reference_model import DenseCache, embed, soften
from tests.numerics.reference_state import State, first_end, first_state
from tests.numerics.reference_words import Floats

SOFT_DEFAULTS: dict[str, Any] = {
    "weight_start": 0.1,
    "weight_growth": 0.02,
    "weight_max": 0.3,
    "relaxation": 0.02,
    "temperature": 1.0,
    "top_k": None,
    "scope": "block",
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
    opening: str | None = None,
) -> Outcome:
    """Generate for one request. `cache` and `decoding` hold a name and settings, `soft` only
    settings; absent settings have their defaults. A block-causal model's blocks are denoised whole,
    or in sub-blocks if `block_length` is less. `opening`: what commits in the forward that opens a
    block; None: as for Dream's sampler, or else as the model's authors have it."""
    is_timed = decoding["name"] == "dream" or decoding.get("remainder") == "spread"
    opening = opening or ("free" if is_timed else model.config.rules.opening)
    state = first_state(model, request, block_length, opening)
    if decoding["name"] == "edit" and cache["name"] == "dkv":
        raise ValueError("decoding 'edit' changes committed tokens, cache 'dkv' keeps them")
    if soft is not None:
        assert soft.keys() <= SOFT_DEFAULTS.keys(), f"unknown settings among {list(soft)}"
        soft = SOFT_DEFAULTS | soft
    run = _Forwards(model, state, soft)
    while True:
        is_opening = state.opens
        asked = _asked(state, edits=decoding["name"] == "edit")
        if is_opening:
            asked = asked[:1]
        forward = _forward(state, cache, asked, is_opening=is_opening)
        run.forward(forward.positions)
        iteration = state.num_decoding_iterations
        _count(state, forward)
        if not forward.has_logits:
            continue
        logits = run.logits(forward.positions, asked)
        if decoding.get("suppress_eos") == "logits":
            for z in logits.values():
                z[state.eos[0]] = -np.inf
        run.soften(forward.positions)
        view = _view(state, logits, iteration, soft)
        is_greedy = is_opening and state.attention_length is not None
        view = _held_back(_filtered(view, model, request, is_greedy), state.eos, decoding)
        commits = _commits(state, view, asked, decoding, is_opening=is_opening, is_greedy=is_greedy)
        _write(state, commits, logits)
        if is_opening:
            state.begin_behind_opening()
        finished = is_finished(decoding, view, commits, len(state.masked()))
        may_end = finished or decoding["name"] != "edit"
        if may_end and ((stop_at_eos and state.has_ended()) or state.has_all()):
            return _outcome(state)
        if finished:
            # A forward that found the final tokens has written final K and V.
            saw_final_tokens = not view.masked and not commits
            state.turn(is_cached=saw_final_tokens)


class _Forwards:
    """The forwards of one sequence: K and V of its canvas and, with guidance, of the canvas with
    masks for a prompt."""

    def __init__(self, model: Transformer, state: State, soft: dict[str, Any] | None) -> None:
        self._model, self._state, self._soft = model, state, soft
        self._dense, self._twin = (DenseCache(model, len(state.canvas)) for _ in range(2))
        self._hidden = self._hidden_twin = torch.empty(0)

    def forward(self, positions: list[int]) -> None:
        model, state, soft = self._model, self._state, self._soft
        self._hidden = self._dense.forward(embed(model, state, positions, soft), positions)
        if state.request.guidance:
            embedded = embed(model, state.without_prompt(), positions, soft)
            self._hidden_twin = self._twin.forward(embedded, positions)

    def logits(self, positions: list[int], asked: list[int]) -> dict[int, Floats]:
        """Logits of the requested positions by the last forward, which was over `positions`."""
        guidance = self._state.request.guidance
        rows = [positions.index(i - self._state.is_shifted) for i in asked]
        without_prompt = self._hidden_twin[rows] if guidance else None
        found = self._dense.logits(self._hidden[rows], without_prompt, guidance)
        return dict(zip(asked, found, strict=True))

    def soften(self, positions: list[int]) -> None:
        """Keep what the last forward gives as soft embeddings, if they are for the whole canvas."""
        if self._soft is not None and self._soft["scope"] == "canvas":
            soften(self._model, self._dense, self._state, positions, self._hidden, self._soft)


def _forward(state: State, cache: dict[str, Any], asked: list[int], *, is_opening: bool) -> Forward:
    """The positions of the next forward: the policy's and, where logits are shifted, those that
    the logits of the requested positions come from."""
    forward = CACHES[cache["name"]](state, **_settings(cache))
    if is_opening and state.attention_length is not None and forward.has_logits:
        # The logits come from the finished block before, so the new one need not be computed.
        forward.positions = [i for i in forward.positions if i < state.block_start]
    if state.is_shifted and forward.has_logits:
        forward.positions = sorted({*forward.positions, *(i - 1 for i in asked)})
    return forward


def _filtered(view: View, model: Transformer, request: Request, is_greedy: bool) -> View:
    """The view with its logits divided by the temperature, if confidences are filtered."""
    if is_greedy or not is_filtered(model, request):
        return view
    scaled = {i: z / np.float32(request.temperature) for i, z in view.logits.items()}
    return replace(view, logits=scaled, temperature=1.0)


def _held_back(view: View, ends: tuple[int, ...], decoding: dict[str, Any]) -> View:
    form = decoding.get("suppress_eos")
    if form == "confidence":
        return replace(view, last=ends)
    return replace(view, last=ends, uncounted=ends) if form == "softmax" else view


def _commits(
    state: State,
    view: View,
    asked: list[int],
    decoding: dict[str, Any],
    *,
    is_opening: bool,
    is_greedy: bool,
) -> Commits:
    """What the strategy commits, or the opening."""
    if is_opening:
        return _alone(view, asked[0], decoding, is_greedy=is_greedy)
    commits = DECODERS[decoding["name"]](view, **_settings(decoding))
    if state.opening == "first" and asked and _is_settled(state, asked[0]):
        # Its logits can no longer change, so it commits at once.
        commits |= _alone(view, asked[0], decoding)
    return commits


def _asked(state: State, edits: bool) -> list[int]:
    """The requested positions of the active block: the masked ones or, if tokens may be edited, all
    after the prompt; but not the final ones that an opening has committed."""
    if not edits:
        return state.masked()
    return [i for i in state.open_positions() if i in state.masked() or not _is_settled(state, i)]


def _is_settled(state: State, position: int) -> bool:
    """Whether the position's logits are computed in a finished block (shifted logits), and the
    opening takes it at once."""
    if state.attention_length is None or not state.is_shifted or state.opening == "free":
        return False
    return position % state.attention_length == 0


def _alone(view: View, position: int, decoding: dict[str, Any], is_greedy: bool = False) -> Commits:
    """What the strategy would commit if this were the only requested position."""
    only = replace(
        view,
        temperature=0.0 if is_greedy else view.temperature,
        logits={position: view.logits[position]},
        masked=[position],
        tokens={position: view.tokens[position]},
        memory={},
    )
    return DECODERS[decoding["name"]](only, **_settings(decoding))


def _settings(component: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in component.items() if key not in ("name", "suppress_eos")}


def _count(state: State, forward: Forward) -> None:
    if forward.is_refresh:
        state.num_refreshes += 1
        state.last_refresh = state.num_iterations
    state.num_iterations += 1
    state.num_query_tokens += len(forward.positions) * (2 if state.request.guidance else 1)
    if state.attention_length is not None:
        state.num_cached = min(forward.positions[-1] + 1, state.attention_block[0])
    state.uncached -= set(forward.positions)


def is_filtered(model: Transformer, request: Request) -> bool:
    """Whether the strategy sees the logits divided by the temperature (there are no filters here:
    tests/numerics/authors has them)."""
    assert request.top_k is request.top_p is None, "this loop knows no filters"
    confidence = request.confidence or model.config.rules.confidence
    return confidence == "filtered" and request.temperature > 0


def _view(
    state: State, logits: dict[int, Floats], iteration: int, soft: dict[str, Any] | None
) -> View:
    return View(
        logits=logits,
        masked=state.masked(),
        tokens={i: state.canvas[i] for i in logits},
        block_length=state.block_length,
        num_masked_at_block_start=state.num_masked_at_block_start,
        iteration=iteration,
        iteration_in_block=state.num_iterations_since_opening,
        temperature=state.request.temperature,
        seed=state.request.seed,
        relaxation=None if soft is None else soft["relaxation"],
        memory=state.memory,
    )


def _write(state: State, commits: Commits, logits: dict[int, Floats]) -> None:
    state.previous_logits = logits
    state.num_decoding_iterations += 1
    state.num_iterations_in_block += 1
    state.num_iterations_since_opening += 1
    for i, proposal in commits.items():
        state.canvas[i] = proposal.word
        state.confidences[i] = proposal.confidence
        state.uncached.add(i)


def _outcome(state: State) -> Outcome:
    """The result: what was generated before the first EOS or the limit."""
    generated = state.canvas[state.prompt_len : state.limit]
    end = first_end(generated, state.eos)
    token_ids = generated[:end]
    assert state.mask not in token_ids
    confidences = [state.confidences[state.prompt_len + i] for i in range(len(token_ids))]
    return Outcome(
        token_ids,
        "length" if end is None else "eos",
        state.num_iterations,
        state.num_refreshes,
        state.num_query_tokens,
        float(np.mean(confidences)) if confidences else None,
    )
