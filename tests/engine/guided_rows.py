"""Requests with guidance beside others, and an engine's results for them."""

from dataclasses import replace
from typing import Any

from engine.engine import DiffusionEngine
from engine.request import Request, Result
from tests.numerics.combinations import Combination
from tests.tiny import mixed_requests

DUAL = Combination({"name": "dual"}, {"name": "threshold", "threshold": 0.6})
SETTINGS = {"block_length": 8, "max_sequences": 6}


def mixed(num_requests: int, guidance: float = 0.5) -> list[Request]:
    """Every second one with guidance, every third one sampled."""
    return [
        replace(r, guidance=guidance * (i % 2), temperature=0.7 * (i % 3 == 2))
        for i, r in enumerate(mixed_requests(num_requests))
    ]


def results_of(engine: DiffusionEngine, requests: list[Request]) -> dict[Any, Result]:
    results = {result.request_id: result for result in engine.results(requests)}
    engine.iterations.pages.check_integrity()
    assert engine.iterations.pages.num_granted == 0
    assert engine.iterations.live.num_guided == 0
    return results
