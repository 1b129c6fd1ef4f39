"""Which forwards are captured, which graphs are kept, and what happens without memory for them.

Captured by the stand-in of tests/engine/tape.py.
"""

import logging
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.batch_buffer import BatchShape
from engine.graphs import SIGHTINGS, Captured, Graphs, padded_shape
from tests.engine.graphed import (
    BLOCK,
    MODELS,
    SOFT,
    assert_results_of_eager,
    engines,
    requests_of_both_kinds,
    results_of,
)
from tests.engine.tape import TapeCapture
from tests.numerics.combinations import Combination
from tests.tiny import mixed_requests

THRESHOLD = Combination({"name": "dual"}, {"name": "threshold"})
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def test_a_shape_is_captured_when_it_comes_again() -> None:
    """And never twice: no graph is dropped here. What a replay pads is counted."""
    _, engine, capture = engines(MODELS["bidirectional"], THRESHOLD)
    graphs, seen, num_padding = engine.forwards.graphs, Counter[BatchShape](), 0
    assert graphs is not None
    real = graphs.graph

    def graph(host: HostBatch, tiles: Any) -> Any:
        nonlocal num_padding
        shape, found = padded_shape(host, tiles), real(host, tiles)
        seen[shape] += 1
        assert (found is not None) == (seen[shape] >= SIGHTINGS)
        if found is not None:
            num_padding += shape.num_query_tokens - host.positions_Q.size
        return found

    graphs.graph = graph  # type: ignore[method-assign]
    results_of(engine, mixed_requests(8))
    results_of(engine, mixed_requests(8, temperature=0.7))
    assert {shape.any_sampled for shape in seen} == {False, True}
    assert capture.num_captures == sum(times >= SIGHTINGS for times in seen.values()) > 3
    assert engine.stats.num_padding_tokens == num_padding > 0


def test_a_capture_changes_nothing_of_the_sequences() -> None:
    """In the middle of a run: no token, no K and V, no state but those of the scratch page."""
    _, engine, capture = engines(
        MODELS["bidirectional"], Combination({"name": "dual"}, {"name": "klass"}, SOFT)
    )
    for request in requests_of_both_kinds(3):
        engine.add(request)
    for _ in range(4):
        engine.run_iteration()
    decider, graphs = engine.forwards._decider, engine.forwards.graphs
    kept = {
        "tokens": engine.canvases._tokens_S[:-1],
        "pages": engine.runner.kv._pages[:, :, :-1],
        **{name: rows_SW[:-1] for name, rows_SW in decider._state._fields.items()},
    }
    before = {name: tensor.clone() for name, tensor in kept.items()}
    assert before["stable"].any()
    assert graphs is not None
    with torch.inference_mode():
        assert graphs._captured(BatchShape(48, 48, 4, 4, (), True), capture)
    for name, tensor in kept.items():
        assert torch.equal(tensor, before[name]), name
    assert engine.runner.kv._pages[:, :, -1].any()


def test_long_forwards_are_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.graphs.MOST_QUERY_TOKENS", 30)
    eager, engine, capture = engines(MODELS["bidirectional"], THRESHOLD)
    assert_results_of_eager(engine, eager)
    assert 0 < capture.num_replays < engine.stats.num_iterations
    monkeypatch.setattr("engine.graphs.MOST_QUERY_TOKENS", 1)
    eager, engine, capture = engines(MODELS["bidirectional"], THRESHOLD)
    assert_results_of_eager(engine, eager)
    assert capture.num_captures == engine.stats.num_padding_tokens == 0


def test_few_graphs_are_kept_and_no_token_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.graphs.MOST_GRAPHS", 2)
    monkeypatch.setattr("engine.graphs.SIGHTINGS_WHEN_FULL", 3)
    eager, engine, capture = engines(MODELS["bidirectional"], THRESHOLD)
    assert_results_of_eager(engine, eager)
    assert capture.num_captures > 2
    assert engine.forwards.graphs is not None
    assert len(engine.forwards.graphs) == 2


def failing_captures(error: Exception) -> Callable[[Callable[[], Tensor]], Captured]:
    """A capture that fails from the third on, after the forward's last layer."""
    works, numbers = TapeCapture(), count()

    def capture(function: Callable[[], Tensor]) -> Captured:
        captured = works(function)
        if next(numbers) >= 2:
            raise error
        return captured

    return capture


def broken_by_memory() -> Exception:
    """What torch raises if ending a capture fails because an allocation in it has failed."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = OUT_OF_MEMORY
    return error


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, broken_by_memory()], ids=repr)
def test_without_memory_for_a_capture_forwards_are_eager_from_then_on(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    eager, engine, _ = engines(MODELS["bidirectional"], THRESHOLD)
    forwards = engine.forwards
    forwards.graphs = Graphs(forwards.device_part, forwards.sender, failing_captures(error))
    with caplog.at_level(logging.WARNING, logger="engine"):
        assert_results_of_eager(engine, eager)
    assert [record.message for record in caplog.records] == [
        "no memory to capture a CUDA graph: forwards are launched kernel by kernel from now on"
    ]
    assert len(forwards.graphs) == 0
    assert engine.stats.num_failed_forwards == 0


def test_other_errors_of_a_capture_are_not_swallowed() -> None:
    _, engine, _ = engines(MODELS["bidirectional"], THRESHOLD)
    error = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    forwards = engine.forwards
    forwards.graphs = Graphs(forwards.device_part, forwards.sender, failing_captures(error))
    with pytest.raises(RuntimeError, match="not permitted"):
        results_of(engine, requests_of_both_kinds(8))


def test_a_row_that_fails_alone_gets_the_memory_of_the_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forwards of over 60 query tokens fail while there are graphs."""
    eager, engine, capture = engines(MODELS["bidirectional"], THRESHOLD)
    graphs, real = engine.forwards.graphs, engine.runner.forward
    assert graphs is not None

    def forward(batch: Any, *rest: Any) -> Tensor:
        if batch.positions_Q.shape[0] > 60 and len(graphs):
            raise OUT_OF_MEMORY
        return real(batch, *rest)

    monkeypatch.setattr("engine.graphs.MOST_QUERY_TOKENS", 60)
    monkeypatch.setattr(engine.runner, "forward", forward)
    assert_results_of_eager(engine, eager)
    assert engine.stats.num_failed_forwards > 1
    assert capture.num_captures > 0 == len(graphs)


def test_retried_forwards_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth eager forward fails in its head, between replays."""
    eager, engine, capture = engines(
        MODELS["bidirectional"], Combination({"name": "commit"}, {"name": "credit"}, SOFT)
    )
    real, numbers = engine.forwards.device_part, count(1)

    def device_part(batch: Any) -> Tensor:
        report = real(batch) if next(numbers) % 5 else None
        if report is None:
            engine.runner.forward(batch, engine.canvases.tokens(batch.slots_Q))
            raise OUT_OF_MEMORY
        return report

    monkeypatch.setattr(engine.forwards, "device_part", device_part)
    assert_results_of_eager(engine, eager)
    assert engine.stats.num_failed_forwards > 0 < capture.num_replays
    assert 0 < engine.stats.forward_s < engine.stats.iteration_s


def test_without_fused_kernels_nothing_is_captured() -> None:
    engine = THRESHOLD.engine(MODELS["bidirectional"], block_length=BLOCK)
    assert engine.config.graphs
    assert engine.forwards.graphs is None
