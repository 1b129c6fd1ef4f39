"""Measures the host time of iterations of one checkout of the project, for jobs/bench/host.py.

    python -P jobs/bench/iteration_times.py --batches 1 32 --iterations 200

The project is the one that PYTHONPATH names, so that two revisions can be compared: only the
engine's public constructors, `add` and `run_iteration` are used. For the parts of an iteration,
functions of the engine are wrapped by name. Prints one JSON document.
"""

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import engine.engine as loop
from engine.cache import CACHE_POLICIES
from engine.config import EngineConfig
from engine.decoding.threshold import Threshold
from engine.engine import DiffusionEngine
from engine.model.config import ModelConfig
from engine.model.transformer import Transformer
from engine.request import Request

CACHES = {"dual": None, "block_causal": 32}
"""The default cache of each attention, and the length of the model's attention blocks."""
VOCAB_SIZE, MASK, EOS = 64, 62, 63
PROMPT_TOKENS, NEW_TOKENS, BLOCK = 512, 256, 32
WARM_UP = 40
PARTS = ("schedule", "pack_send", "device", "advance")


def model(attn_block_length: int | None) -> Transformer:
    """A model of no layers that never predicts EOS."""
    torch.manual_seed(0)
    config = ModelConfig(
        family="llada",
        vocab_size=VOCAB_SIZE,
        hidden_size=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=2,
        mlp_size=8,
        rope_theta=1e4,
        norm_eps=1e-5,
        max_positions=1024,
        mask_token_id=MASK,
        eos_token_ids=(EOS,),
        block_length=attn_block_length,
    )
    made = Transformer(config)
    made.layers = nn.ModuleList()
    made.head.weight.data[EOS] = 0
    return made.eval().requires_grad_(False)


class Feed:
    """An engine whose batch is always full, with sequences at different places of their lives."""

    def __init__(self, cache: str, batch: int) -> None:
        config = EngineConfig(
            block_length=BLOCK,
            max_sequences=batch,
            # Canvases of different lengths leave gaps between them; there is room for these too.
            cache_tokens=batch * 2048,
            iteration_tokens=batch * 1024,
        )
        self.engine = DiffusionEngine(
            model(CACHES[cache]), config=config, decoding=Threshold(), cache=CACHE_POLICIES[cache]()
        )
        self._draw = random.Random(0)
        self._num_requests = 0
        for _ in range(batch):
            self._add(self._draw.randint(1, NEW_TOKENS))
        for _ in range(WARM_UP):
            self.iteration()

    def iteration(self) -> float:
        """Seconds of one iteration."""
        start = time.perf_counter()
        results = self.engine.run_iteration()
        seconds = time.perf_counter() - start
        for result in results:
            assert result.error is None, result.error
            self._add(NEW_TOKENS)
        return seconds

    def _add(self, num_tokens: int) -> None:
        prompt = [self._draw.randrange(MASK) for _ in range(PROMPT_TOKENS)]
        request = Request(
            request_id=self._num_requests, prompt_ids=prompt, max_new_tokens=num_tokens
        )
        self._num_requests += 1
        self.engine.add(request)


class Parts:
    """When the parts of an iteration began and ended."""

    def __init__(self, engine: DiffusionEngine) -> None:
        self.moments: dict[str, list[float]] = {}
        manager: Any = engine.iterations
        manager.schedule = self._wrap("schedule", manager.schedule)
        manager.advance = self._wrap("advance", manager.advance)
        # What sends a batch has moved between revisions; at first it was part of `pack`.
        self._plain: list[tuple[Any, str, Any]] = [(loop, "pack", vars(loop)["pack"])]
        if hasattr(loop, "send"):
            self._plain.append((loop, "send", vars(loop)["send"]))
        elif hasattr(loop, "BatchSender"):
            sender = vars(loop)["BatchSender"]
            self._plain.append((sender, "send", sender.send))
        for owner, name, function in self._plain:
            setattr(owner, name, self._wrap(name, function))

    def of(self, start: float, end: float) -> dict[str, float]:
        """Seconds of each part of the iteration from `start` to `end`."""
        at = self.moments
        sent = at[self._plain[-1][1]][1]
        return {
            "schedule": at["schedule"][1] - start,
            "pack_send": sent - at["schedule"][1],
            "device": at["advance"][0] - sent,
            "advance": end - at["advance"][0],
        }

    def remove(self) -> None:
        for owner, name, function in self._plain:
            setattr(owner, name, function)

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            value = function(*arguments)
            self.moments[name] = [start, time.perf_counter()]
            return value

        return timed


def measure(cache: str, batch: int, num_iterations: int) -> dict[str, Any]:
    """Median milliseconds of an iteration and of its parts, over different iterations."""
    feed = Feed(cache, batch)
    gc.collect()
    totals = [feed.iteration() for _ in range(num_iterations)]
    parts = Parts(feed.engine)
    spent: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(num_iterations):
        start = time.perf_counter()
        seconds = feed.iteration()
        for name, value in parts.of(start, start + seconds).items():
            spent[name].append(value)
    parts.remove()
    return {
        "cache": cache,
        "batch": batch,
        "total_ms": 1e3 * statistics.median(totals),
        "parts_ms": {name: 1e3 * statistics.median(values) for name, values in spent.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--iterations", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        measure(cache, batch, arguments.iterations)
        for cache in CACHES
        for batch in arguments.batches
    ]
    print(json.dumps({"engine": loop.__file__, "cases": cases}))


if __name__ == "__main__":
    main()
