"""Stop strings on the ranks of a tensor-parallel group: every rank cuts the same sequence at the
same place, in the same iteration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.engine import DiffusionEngine, EngineConfig
from engine.model.load import load_model
from engine.parallel import ALONE, TensorParallel
from engine.request import FinishReason, Request, Result
from tests.engine.test_stops import STOPS, letters_of
from tests.engine.thread_ranks import on_ranks
from tests.numerics.exact import assert_same
from tests.published import small_vocabulary, write_weights
from tests.tiny import EOS, MASK, mixed_requests

Finished = list[list[Any]]
"""Of each iteration, whose sequences finished in it."""


def requests() -> list[Request]:
    return [
        replace(
            request,
            temperature=0.8 * (request.request_id % 2),
            max_new_tokens=40,
            stop=STOPS[request.request_id % len(STOPS)] if request.request_id % 6 else (),
        )
        for request in mixed_requests(12, seed=5)
    ]


def run(folder: Path, decoding: str, rank: TensorParallel) -> tuple[dict[Any, Result], Finished]:
    model = load_model(folder, parallel=rank)
    cache = "dual" if model.config.block_length is None else "block_causal"
    engine = DiffusionEngine(
        model,
        config=EngineConfig(max_sequences=5, block_length=8, tensor_parallel=rank.size),
        decoding=DECODERS[decoding](),
        cache=CACHE_POLICIES[cache](),
        text_of=letters_of,
    )
    results, finished = {}, []
    for request in requests():
        engine.add(request)
    while engine.num_unfinished:
        found = engine.run_iteration()
        results |= {result.request_id: result for result in found}
        finished.append([result.request_id for result in found])
    return results, finished


@pytest.mark.parametrize("decoding", ["threshold", "edit"])
@pytest.mark.parametrize(
    ("layout", "changes"), [("llada", {}), ("llada2", {"block_length": 8})], ids=str
)
def test_every_rank_stops_the_same_sequence_in_the_same_iteration(
    layout: str, changes: dict[str, Any], decoding: str, tmp_path: Path
) -> None:
    write_weights(tmp_path, layout, **small_vocabulary(layout, MASK, EOS), **changes)
    expected, when = run(tmp_path, decoding, ALONE)
    reasons = [result.finish_reason for result in expected.values()]
    assert reasons.count(FinishReason.STOP) > 3
    assert len({tuple(ids) for ids in when}) > 5
    for size in (2, 4):
        for results, its in on_ranks(size, lambda rank: run(tmp_path, decoding, rank)):
            assert_same(results, expected, f"{size} ranks")
            assert its == when, f"{size} ranks"
