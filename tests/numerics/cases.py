"""Compares the engine with the authors' loops (tests/numerics/authors): one sequence at a time and
many at once.

Prompts of one block, one token less, one more and shorter ones are among the requests, and so are
generation regions of one token.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.combinations import Combination
from tests.numerics.reference_state import first_end
from tests.published import small_vocabulary, write_weights
from tests.tiny import EOS, MASK, VOCAB_SIZE

Loop = Callable[..., list[int]]
Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A family's rule as a loop, and the engine's settings that say the same."""

    layout: str
    loop: Loop
    decoding: Settings
    cache: Settings = field(default_factory=lambda: {"name": "none"})
    engine: Settings = field(default_factory=dict)
    request: Settings = field(default_factory=dict)
    """Changes to the requests, such as top_p."""
    config: Settings = field(default_factory=dict)
    """Changes to config.json."""
    num_requests: int = 48
    only: Callable[[Request], bool] = lambda request: True
    """Which requests the loop covers."""


BLOCK = 8
CAUSAL: dict[str, Settings] = {
    "none": {"name": "none"},
    "fused": {"name": "block_causal"},
    "apart": {"name": "block_causal", "fused_commit": False},
}
"""No cache, and the exact one of block-causal models in both of its forms."""


def causal(name: str, layout: str, loop: Loop, decoding: Settings, **more: Any) -> dict[str, Case]:
    """A case without a cache and two with the exact one."""
    return {
        f"{name}-{kind}": Case(layout=layout, loop=loop, decoding=decoding, cache=cache, **more)
        for kind, cache in CAUSAL.items()
    }


@cache
def model_of(layout: str, changes: tuple[tuple[str, Any], ...]) -> Transformer:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder, layout, **small_vocabulary(layout, MASK, EOS), **dict(changes))
        model = load_model(folder)
    head = model.embed if model.config.tied_head else model.head
    head.weight.data[EOS] *= 1.5  # or hardly a request would end before its limit
    return model


def requests(case: Case, block: int, temperature: float) -> list[Request]:
    """Prompts and regions at the edges of blocks first, then of random lengths."""
    draw = random.Random(5)
    lengths = [(1, 1), (block, 1), (block - 1, 2), (block + 1, 1), (block - 1, 1)]
    lengths += [(p, n) for p in (1, block - 1, block, block + 1) for n in (block, block + 3)]
    lengths += [(2 * block, 2 * block + 1), (2 * block - 1, block)]
    while len(lengths) < 4 * case.num_requests:
        lengths.append((draw.randint(1, 2 * block + 2), draw.randint(1, 3 * block + 4)))
    asked = [
        Request(
            request_id=i,
            prompt_ids=[draw.randrange(VOCAB_SIZE - 2) for _ in range(num_prompt_tokens)],
            max_new_tokens=num_new,
            temperature=temperature,
            seed=draw.getrandbits(63),
            **case.request,
        )
        for i, (num_prompt_tokens, num_new) in enumerate(lengths)
    ]
    return [request for request in asked if case.only(request)][: case.num_requests]


def assert_engine_follows(case: Case, model: Transformer, asked: list[Request]) -> None:
    """The engine generates what the case's loop does, in a batch and one by one."""
    combination = Combination(case.cache, case.decoding)
    results = combination.run(model, asked, max_sequences=48, **case.engine)
    for request in asked:
        generated = case.loop(model, request)
        end = first_end(generated, model.config.eos_token_ids)
        result = results[request.request_id]
        assert result.token_ids == generated[:end], request
        assert result.finish_reason == ("length" if end is None else "eos"), request
    few = asked[:12]
    alone = combination.run(model, few, max_sequences=1, **case.engine)
    for request in few:
        i = request.request_id
        assert alone[i].token_ids == results[i].token_ids, f"alone and in a batch: {request}"
